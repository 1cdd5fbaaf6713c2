#!/bin/sh
# A g++ for the tests, installed as `g++` beside a `gcc`: the machine's own, with a plan.
#
# What it compiled once for the same arguments it hands out again, so that a stage costs seconds and
# can be disturbed often; `unmemorable` beside it turns that off. `plan` beside it holds a number and
# what happens at that call: exit (fails), signal (is killed), half (half an object, then fails).
set -u
here=$(dirname "$0")
real=$(cat "$here/real")

out='' depfile='' previous=''
for word in "$@"; do
  case $previous in
    -o) out=$word ;;
    -MF) depfile=$word ;;
  esac
  previous=$word
done
[ -n "$out" ] || exec "$real" "$@"

number=1
until mkdir "$here/calls/$number" 2>/dev/null; do
  number=$((number + 1))
  [ $number -lt 10000 ] || exit 99
done
if [ -f "$here/plan" ]; then
  read -r at what <"$here/plan"
  if [ "$number" = "$at" ]; then
    case $what in
      signal) kill -KILL $$ ;;
      half) head -c 1000 "$real" >"$out" ;;
    esac
    echo "g++: internal compiler error: as planned" >&2
    exit 1
  fi
fi

case " $* " in
  *" -c "*) ;;
  *) exec "$real" "$@" ;;
esac
key=$(printf '%s\n' "$PWD" "$@" | sha256sum | cut -c1-64)
kept=$here/objects/$key
if [ -f "$kept.o" ] && [ ! -e "$here/unmemorable" ]; then
  [ -z "$depfile" ] || cp "$kept.d" "$depfile" || exit 1
  cp "$kept.o" "$out"
  exit
fi
"$real" "$@" || exit
[ -z "$depfile" ] || cp "$depfile" "$kept.d" || exit 0
cp "$out" "$kept.$$" && mv "$kept.$$" "$kept.o"
exit 0
