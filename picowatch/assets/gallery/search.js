"use strict";
// Search, such as `corgi "red hat" -blurry steps:<20`.

const textsByEntry = new WeakMap(); // its settings in lower case, and all of them in one text

function textsOf(entry) {
  if (!textsByEntry.has(entry)) textsByEntry.set(entry, readTexts(entry));
  return textsByEntry.get(entry);
}

// In lower case, with an accented letter as one character.
const folded = text => text.normalize("NFC").toLowerCase();

function readTexts(entry) {
  const settings = settingsOf(entry).map(([name, text]) => [name, folded(text)]);
  // The alternatives of a prompt with wildcards are found only by name: unexpanded:cat.
  const drawn = settings.filter(([name]) => !name.startsWith("unexpanded_"));
  settings.push(["width", `${entry.width}`], ["height", `${entry.height}`]);
  return { settings, whole: drawn.map(([name, text]) => `${name} ${text}`).join("\n") };
}

// Read all pictures' texts while the page is idle, so that the first letter finds them at once.
function readAhead(place = 0) {
  const entries = Pictures.all;
  (globalThis.requestIdleCallback ?? setTimeout)(deadline => {
    const until = performance.now() + Math.min(8, deadline?.timeRemaining() ?? 4);
    while (place < entries.length && performance.now() < until) textsOf(entries[place++]);
    if (place < entries.length && entries === Pictures.all) readAhead(place);
  });
}

// A picture matches if every word of the query does.
function wanted(query) {
  const words = wordsOf(query);
  return entry => words.every(word => holdsOf(entry, word) !== word.not);
}

const holdsOf = (entry, word) => OF_PICTURES[nameOf(word)]?.(entry, word.text) ?? holds(textsOf(entry), word);
// One letter or two may mean other settings.
const nameOf = ({ name }) => Object.keys(OF_PICTURES).find(own => name?.length > 2 && own.startsWith(name));

// What is no setting: null for a text that means none of this.
const OF_PICTURES = {
  made: (entry, text) => days(text)?.(dayOf(new Date(entry.made_at * 1000))) ?? null,
  since: (entry, text) => "last".startsWith(text) ? entry.made_at > (Looked.last ?? 0)
    : days(`>=${text}`)?.(dayOf(new Date(entry.made_at * 1000))) ?? null,
  stars: (entry, text) => numbers(text)?.(Marks.of(entry).stars) ?? null,
  marked: (entry, text) => ({ keep: "kept", reject: "rejected" }[Marks.of(entry).flag] ?? "none").startsWith(text),
};

// A day such as 2026-11-28, in this browser's time zone.
const dayOf = date => [date.getFullYear(), date.getMonth() + 1, date.getDate()]
  .map(number => String(number).padStart(2, "0")).join("-");

// Parse a condition on a day: yesterday, 2026-11-28, 2026-11, >=2026-11-20 or 2026-11-20..today; null
// for other words. A month or a year has all its days.
function days(text) {
  const [, sign, first, last] = text.match(/^([<>]=?)?(.+?)(?:\.\.(.+))?$/) ?? [];
  const [from, to] = [first, last ?? first].map(isoDay);
  if (!from || !to || (sign && last)) return null;
  return compared(sign, from, to, (day, limit) => day.slice(0, limit.length));
}

function isoDay(text) {
  const today = new Date();
  if (text === "today") return dayOf(today);
  if (text === "yesterday") return dayOf(new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1));
  return /^\d{4}(-\d\d){0,2}$/.test(text ?? "") ? text : null;
}

// `steps: < 20` is `steps:<20`; `steps:` and `steps:<`, while it is typed, find every picture.
function wordsOf(query) {
  const words = [], together = folded(query).replace(/\b([a-z_]+):\s*([<>]=?|=)?\s*(?=[\d.])/g,
    (whole, name, sign = "") => isSetting(name) ? `${name}:${sign}` : whole);
  for (const [, minus, name, phrase, word] of together.matchAll(/(-?)(?:([a-z_]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    const text = phrase ?? word, [, unfinished] = text.match(/^([a-z_]+):$/) ?? [];
    const isWhole = name === undefined ? !unfinished || !isSetting(unfinished) : !/^[<>=]+$/.test(text);
    if (text && isWhole) words.push({ not: minus === "-", name: name === "cfg" ? "cfg_scale" : name, text });
  }
  return words;
}

// Whether any picture has, or might have, a setting whose name begins with this.
function isSetting(name) {
  const isOften = ["negative_prompt", "unexpanded_prompt"].some(own => own.startsWith(name));
  return isOften || nameOf({ name }) || Pictures.all.some(entry => textsOf(entry).settings.some(([own]) => own.startsWith(name)));
}

// The first word before a colon that no picture has as a setting.
function unknownSetting(query) {
  return wordsOf(query).find(({ name }) => name !== undefined && !isSetting(name))?.name;
}

function holds({ settings, whole }, { name, text }) {
  if (name === undefined) return whole.includes(text);
  const values = settings.filter(([own]) => own.startsWith(name)).map(([, value]) => value);
  if (!values.length) return whole.includes(`${name}:${text}`);
  const fits = numbers(text);
  return values.some(value => fits && !isNaN(value) ? fits(Number(value)) : value.includes(text));
}

// Parse a condition on a number: 24, <20, >=7.5 or 20..30; null for other words.
function numbers(text) {
  const [, sign, first, last] = text.match(/^([<>]=?|=)?(-?[\d.]+?)(?:\.\.(-?[\d.]+))?$/) ?? [];
  const from = Number(first), to = Number(last ?? first);
  if (isNaN(from) || isNaN(to) || (sign && last)) return null;
  return compared(sign, from, to, value => value);
}

// A condition: less or more than `from`, or between both; `like` gives the part of a value to compare.
function compared(sign, from, to, like) {
  switch (sign) {
    case "<": return value => like(value, from) < from;
    case "<=": return value => like(value, from) <= from;
    case ">": return value => like(value, from) > from;
    case ">=": return value => like(value, from) >= from;
    default: return value => like(value, from) >= from && like(value, to) <= to;
  }
}
