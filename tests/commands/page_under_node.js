// Runs the page's script without a page: what is asked comes as JSON, and so does the answer.
"use strict";
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const page = require(asked.script);
const { data, address } = asked;

const files = (one, client) => (client === "conda" ? one.packages : one.wheels);
const answer = {
  shown: asked.choices.map(({ client, ...picked }) => {
    const one = page.build(data, picked);
    const command = one ? page.command(data, one, client, address) : "";
    return { command, files: command ? files(one, client) : [] };
  }),
  others: asked.choices.map(({ client, ...picked }) =>
    Object.fromEntries(data.fields.map((f) => [f.id, page.others(data, picked, f.id)]))),
  facts: (asked.reports || []).map((text) => page.read(data, text)),
  quoted: (asked.addresses || []).map((text) => page.quoted(text)),
  judged: (asked.judge || []).map(({ facts, client }) => ({
    reasons: data.builds.map((one) => page.judge(data, one, facts, client)),
    best: data.builds.indexOf(page.best(data, facts, client)),
  })),
};
process.stdout.write(JSON.stringify(answer));
