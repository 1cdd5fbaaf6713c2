"use strict";
(function () {
  // ---- Choosing among what the page was given. It has no rule about versions of its own.

  function build(data, picked) {
    return data.builds.find((one) => data.fields.every((f) => one.values[f.id] === picked[f.id]));
  }

  function command(data, one, client, address) {
    const words = one.words;
    if (!words[client === "conda" ? "conda" : "wheel"]) return "";
    const pattern = data.patterns[client + (words.direct && client !== "conda" ? "-direct" : "")];
    const filled = pattern.replace(/\{(\w+)\}/g, (_, name) => words[name]);
    return filled.split(data.address).join(address);
  }

  // Of each field, what there is with the other fields as they are picked.
  function others(data, picked, id) {
    const fits = data.builds.filter((one) =>
      data.fields.every((f) => f.id === id || one.values[f.id] === picked[f.id]));
    const field = data.fields.find((f) => f.id === id);
    return Object.keys(field.values).filter((v) => fits.some((one) => one.values[id] === v));
  }

  function cut(value, numbers) {
    if (value === null || value === undefined || value === "") return "none";
    if (!numbers) return String(value);
    const found = /\d+(?:\.\d+)*/.exec(String(value));
    return found ? found[0].split(".").slice(0, numbers).join(".") : "none";
  }

  function at(value, path) {
    if (!path.length) return [value];
    if (path[0] === "*") return Array.isArray(value) ? value.flatMap((v) => at(v, path.slice(1))) : [];
    if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
    return Object.hasOwn(value, path[0]) ? at(value[path[0]], path.slice(1)) : [];
  }

  // The facts of a report in either form: name -> what was found, one or more. None of them: null.
  function read(data, text) {
    let document;
    try { document = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1)); } catch { document = null; }
    const plain = text.replace(/\r/g, "").replace(/\n {12}(?=\S)/g, " ");
    const facts = {};
    for (const fact of data.client ? [...data.facts, data.client] : data.facts) {
      const found = document !== null && typeof document === "object"
        ? at(document, fact.path)
        : Array.from(plain.matchAll(new RegExp(fact.pattern, "gm")), (m) => m[1]);
      if (found.length) facts[fact.name] = found.map((value) => cut(value, fact.numbers));
    }
    return Object.keys(facts).length ? facts : null;
  }

  function least(found, wanted) {
    const a = found.split(".").map(Number), b = wanted.split(".").map(Number);
    for (let i = 0; i < Math.max(a.length, b.length); i++) {
      if ((a[i] || 0) !== (b[i] || 0)) return (a[i] || 0) > (b[i] || 0);
    }
    return true;
  }

  function broken(data, one, facts, client, wish) {
    const reasons = [];
    for (const number of one.conditions) {
      const c = data.conditions[number];
      if ((c.wish || false) !== wish || !(c.fact in facts)) continue;
      if (c.clients && !c.clients.includes(client)) continue;
      const filled = (text, found) => text.replace(/\{(\w+)\}/g, (_, name) => name === "found" ? found : one.values[name]);
      const values = c.values.map((value) => filled(value, ""));
      for (const value of facts[c.fact]) {
        const holds = c.test === "least"
          ? value !== "none" && least(value, values[0])
          : values.includes(value);
        const reason = filled(c.reason, value);
        if (!holds && !reasons.includes(reason)) reasons.push(reason);
      }
    }
    return reasons;
  }

  function judge(data, one, facts, client) { return facts ? broken(data, one, facts, client, false) : []; }

  // The build against which the least is to be said, and of those one that there is for the client;
  // of several, the last in the page's order.
  function best(data, facts, client) {
    let chosen = null, mark = null;
    for (const one of data.builds) {
      const first = { ...one, conditions: one.conditions.slice(0, 1) };
      const found = [
        judge(data, first, facts, client).length,
        judge(data, one, facts, client).length,
        command(data, one, client, "") ? 0 : 1,
        broken(data, one, facts, client, true).length,
      ];
      const other = mark ? found.findIndex((number, i) => number !== mark[i]) : -1;
      if (other < 0 || found[other] < mark[other]) {
        chosen = one;
        mark = found;
      }
    }
    return chosen;
  }

  // What a shell takes as it is, and a server as the same address.
  function quoted(address) {
    return address.replace(/[^A-Za-z0-9_@%+=:,.\/~\[\]-]/g, (c) =>
      Array.from(new TextEncoder().encode(c), (b) => "%" + b.toString(16).toUpperCase().padStart(2, "0")).join(""));
  }

  if (typeof module === "object") {
    module.exports = { build, command, others, read, judge, best, quoted };
    return;
  }

  // ---- The page.

  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const place = new URL(data.root, location.href);
  place.username = place.password = place.search = place.hash = "";
  const address = quoted(place.href.replace(/\/$/, ""));
  for (const pre of document.querySelectorAll("td pre, th pre")) {
    pre.textContent = pre.textContent.split(data.address).join(address);
  }
  element("without").hidden = true;
  if (!data.builds.length || !element("choose")) return;

  const form = element("picks");
  let facts = null;

  const shown = (f, value) => f.values[value] === value ? `${f.title} ${value}` : f.values[value];
  const picked = () => Object.fromEntries(new FormData(form));

  function pick(values) {
    for (const [name, value] of Object.entries(values)) {
      const input = Array.from(form.elements).find((e) => e.name === name && e.value === value);
      if (input) input.checked = true;
    }
  }

  function say(text) { element("said").textContent = text; }

  function add(parent, tag, text) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  function cells(number) {
    const row = element("f" + number), heads = document.querySelectorAll("thead th");
    const of = {};
    heads.forEach((head, i) => { of[head.textContent] = row.cells[i].textContent; });
    return { row, name: row.querySelector("th a").textContent, of };
  }

  function takes(one, client) {
    const p = element("takes");
    p.textContent = "";
    const numbers = client === "conda" ? one.packages : one.wheels;
    numbers.forEach((number, i) => {
      const { row, name, of } = cells(number);
      row.classList.add("taken");
      p.append(i ? ", and " : "Takes ");
      add(p, "a", name).href = "#f" + number;
      p.append(` (${of.Size})`);
    });
    p.append(".");
    const code = numbers.map((n) => cells(n).of["GPU code"]).find(Boolean);
    const libc = numbers.map((n) => cells(n).of.glibc).filter(Boolean).sort((a, b) => least(a, b) ? -1 : 1)[0];
    if (code) p.append(` GPU code ${code}.`);
    if (libc) p.append(` Needs glibc ${libc} or newer.`);
  }

  function offer(list, field, values) {
    const item = add(list, "li", field.say);
    for (const value of values) {
      const button = add(item, "button", field.values[value]);
      button.type = "button";
      button.addEventListener("click", () => {
        pick({ [field.id]: value });
        update(true);
        element("command").focus();
      });
    }
  }

  function refuse(values) {
    const box = element("reason");
    const what = data.fields.map((f) => shown(f, values[f.id]));
    const text = `There is no build for ${what.join(" and ")}.`;
    add(add(box, "p"), "strong", text);
    const list = add(box, "ul");
    for (const field of data.fields) {
      const rest = data.fields.filter((f) => f !== field).map((f) => shown(f, values[f.id]));
      const known = others(data, values, field.id);
      if (rest.length && known.length) {
        offer(list, { ...field, say: `For ${rest.join(" and ")} there is ${field.title}` }, known);
      }
    }
    return text;
  }

  function update(told) {
    const values = picked(), client = values.client;
    for (const row of document.querySelectorAll(".taken")) row.classList.remove("taken");
    for (const field of data.fields) {
      const known = others(data, values, field.id);
      for (const input of form.querySelectorAll("input")) {
        if (input.name !== field.id) continue;
        input.parentElement.classList.toggle("without", !known.includes(input.value));
      }
    }
    const one = build(data, values), box = element("reason");
    const text = one ? command(data, one, client, address) : "";
    box.textContent = "";
    element("command").textContent = text;
    element("command-box").hidden = element("takes").hidden = !text;
    let spoken;
    if (text) {
      takes(one, client);
      const reasons = judge(data, one, facts, client);
      if (reasons.length) {
        add(add(box, "p"), "strong", "This build does not fit what was pasted:");
        for (const reason of reasons) add(box, "p", reason);
      }
      if (facts && !reasons.length) {
        element("takes").append(" ");
        add(element("takes"), "strong", "It fits what was pasted.");
      }
      spoken = reasons.length ? "Does not fit: " + reasons.join(" ") : text;
    } else if (!one) {
      spoken = refuse(values);
    } else {
      spoken = client === "conda"
        ? "This build has no conda package: it was published as a wheel alone."
        : one.wheels.length
          ? "There are wheels for several platforms: take the command of yours from the table."
          : "This build has no wheel: it was published for conda alone.";
      add(add(box, "p"), "strong", spoken);
    }
    if (told) say(spoken);
  }

  function take() {
    const text = element("report").value.trim(), found = element("found");
    found.textContent = "";
    facts = text ? read(data, text) : null;
    if (text && !facts) found.textContent = "Nothing in this text is known here. Paste all that was printed.";
    if (facts) {
      const client = data.client && facts[data.client.name];
      if (client) pick({ client: client[0] });
      const one = best(data, facts, picked().client);
      if (one) pick(one.values);
      found.textContent = "Found:";
      const list = add(found, "ul");
      for (const fact of data.facts) {
        if (fact.title && facts[fact.name]) add(list, "li", `${fact.title}: ${facts[fact.name].join(", ")}`);
      }
    }
    update(true);
  }

  async function copy() {
    const pre = element("command");
    let done = false;
    try {
      await navigator.clipboard.writeText(pre.textContent);
      done = true;
    } catch {
      getSelection().selectAllChildren(pre);
      done = document.execCommand("copy");
    }
    say("");
    const button = element("copy");
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => say(done ? "Copied" : "The command is selected, and could not be copied."), 50);
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  }

  element("choose").hidden = false;
  const first = form.querySelector("input[name=client]");
  first.checked = true;
  const start = best(data, {}, first.value);
  pick(start.values);
  form.addEventListener("change", () => update(true));
  form.addEventListener("submit", (event) => event.preventDefault());
  element("copy").addEventListener("click", copy);
  if (element("report")) element("report").addEventListener("input", take);
  update(false);
})();
