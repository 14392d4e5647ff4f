"use strict";

const POLL_MS = 1000, PATIENCE_MS = 3000, SOON_SECONDS = 60;
const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");

let known = null;        // the last answer, and on which tick of the browser's own clock it came
let knownTick = 0;
let silentSince = null;  // the tick since when there is none
const shown = {};        // what each part of the page was last drawn from

/* Characters that are not seen, or turn the reading direction, as their codes: people choose some of the texts. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb]/g;
const plain = (text) => text.replace(UNSEEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

/* The ids are integers of 64 bits, which JavaScript rounds: those that it would are kept as text. */
function parse(json) {
  return JSON.parse(json.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) =>
    token[0] === '"' || !/^-?\d+$/.test(token) || Number.isSafeInteger(Number(token)) ? token : `"${token}"`),
  (_, value) => typeof value === "string" ? plain(value) : value);
}

/* ---- elements: text is always set as text, for some of it comes from documents that anybody may have written ---- */

function make(tag, properties, ...children) {
  const svg = ["rect", "circle", "line", "text", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/* Draws a part only when what it shows has changed, so that a selection or a tooltip outlives the next second; a link
   that has the keyboard's focus keeps it. */
function draw(id, from, children) {
  const key = JSON.stringify(from), element = $(id);
  if (shown[id] === key) return;
  shown[id] = key;
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  element.replaceChildren(...children());
  if (focused) [...element.querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus();
}

function say(id, text, className) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
  if (className !== undefined) element.className = className;
  element.hidden = text === "";
}

/* ---- times ---- */

const serverNow = () => known.at + (performance.now() - knownTick) / 1000;
const pad = (number) => String(number).padStart(2, "0");
const iso = (at) => { const date = new Date(at * 1000); return isNaN(date) ? "" : date.toISOString(); };
const utc = (at) => iso(at).slice(11, 19);
const day = (at) => iso(at).slice(0, 10);
const when = (at) => iso(at) ? `${sameDay(at) ? "" : day(at) + " "}${utc(at)} UTC` : "in a far future";
const sameDay = (at) => day(at) === day(serverNow());
const stamp = (at) => make("time", { datetime: iso(at), title: `${day(at)} ${utc(at)} UTC` }, sameDay(at) ? utc(at) : `${day(at)} ${utc(at)}`);

function span(seconds) {
  if (seconds === null) return "never";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${count.format(Math.round(seconds / 86400))} d`;
}

const link = (kind, id, text) => known.pool_views ? make("a", { href: `#${kind}/${id}` }, text) : text;
const plural = (number, noun) => `${count.format(number)} ${noun}${number === 1 ? "" : "s"}`;

function age(seconds) {
  if (seconds === null) return "never yet";
  return seconds < 2 ? "just now" : `${span(Math.round(seconds))} ago`;
}

function countdown(seconds) {
  const whole = Math.floor(seconds), days = Math.floor(whole / 86400);
  const clock = [3600, 60, 1].map((unit) => pad(Math.floor((whole % (unit * (unit === 3600 ? 24 : 60))) / unit))).join(":");
  if (days > 0) return `${count.format(days)} d ${clock}`;
  return seconds < 10 ? `${clock}.${Math.floor(seconds * 10) % 10}` : clock;
}
