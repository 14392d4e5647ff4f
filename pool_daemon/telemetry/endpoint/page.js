"use strict";

const POLL_MS = 1000, PATIENCE_MS = 3000, SOON_SECONDS = 60;
const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");

let known = null;        // the last answer, and on which tick of the browser's own clock it came
let knownTick = 0;
let silentSince = null;  // the tick since when there is none
const shown = {};        // what each part of the page was last drawn from

/* ---- elements: text is always set as text, for some of it comes from documents that anybody may have written ---- */

function make(tag, properties, ...children) {
  const svg = ["rect", "circle", "line", "text", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/* Draws a part only when what it shows has changed, so that a selection or a tooltip outlives the next second. */
function draw(id, from, children) {
  const key = JSON.stringify(from);
  if (shown[id] === key) return;
  shown[id] = key;
  $(id).replaceChildren(...children());
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

/* ---- parts ---- */

function drawHead() {
  say("identity", known.identity);
  const leads = known.role === "leader", of = known.leader && !leads ? ` for ${known.leader}` : "";
  say("role", known.role + (known.term === null ? of : `, term ${known.term}`), `pill ${leads ? "accent" : ""}`);
  const health = !known.live.ok ? "loop stands still" : !known.started.ok ? "starting" : known.ready.ok ? "ready" : "not ready";
  say("ready", health, `pill ${health === "ready" ? "good" : "bad"}`);
  const problems = new Set([...known.live.problems, ...known.started.problems, ...known.ready.problems]);
  const said = [...known.attention.map((attention) => `${attention.short}: ${attention.detail}`), ...problems];
  draw("problems", said, () => said.map((text) => make("li", null, text)));
  $("problems").hidden = said.length === 0;
  say("standby", known.role !== "standby" ? "" : `This daemon stands by: ${known.leader || "no daemon that is known"} leads, and settles what is due.`);
  say("version", `pool-daemon ${known.version}, up ${span(known.uptime_seconds)}, ` + (known.dry_run ? "a dry run: nothing is written"
    : `${plural(known.decommissioned.workloads, "workload")} of ${plural(known.decommissioned.pools, "pool")} decommissioned since`));
}

function drawExpiring() {
  const expiring = known.expiring || {};
  const title = known.expiring ? `counted ${age(known.expiring_age_seconds)}` : "not counted yet";
  draw("expiring", [expiring, title], () => Object.entries({ "1h": "1 hour", "1d": "1 day", "7d": "7 days" }).map(([key, name]) =>
    make("div", null, make("dt", { title }, `within ${name}`), make("dd", { title }, key in expiring ? count.format(expiring[key]) : "?"))));
}

function vital(name, value, detail, state) {
  return make("div", { class: state }, make("dt", null, name), make("dd", null, value, make("span", null, detail || "\u00a0")));
}

function drawVitals() {
  const { last_pass: pass, stream, clocks, brake, quarantine, backlog, backlog_age_seconds: backlogAge, database } = known;
  const wrong = (part) => known.ready.problems.some((problem) => problem.includes(part)) ? "bad" : "good";
  $("vitals").replaceChildren(
    vital("last pass", pass ? age(serverNow() - pass.ended_at) : "none yet",
      pass && (pass.reason ? `${pass.outcome}: ${pass.reason}` : `${pass.outcome} in ${span(pass.seconds)}`),
      !pass ? "" : pass.outcome === "failed" ? "bad" : pass.outcome === "held" && known.role === "leader" ? "warn" : "good"),
    vital("change stream", stream.state,
      stream.state === "open" ? `token moved ${age(stream.token_age_seconds)}` : stream.reason,
      stream.state === "open" ? wrong("stream") : "bad"),
    vital("database", `answered ${age(database.answer_age_seconds)}`, null, wrong("MongoDB")),
    vital("clocks", clocks ? (clocks.agree ? "agree" : "disagree") : "not compared",
      clocks && `${span(Math.abs(clocks.difference_seconds))} apart`, !clocks ? "" : clocks.agree ? "good" : "bad"),
    vital("brake", brake ? (brake.pools === null ? "holds pools" : `holds ${plural(brake.pools, "pool")}`) : "holds nothing",
      brake && brake.detail, brake ? "warn" : "good"),
    known.role === "leader"
      ? vital("backlog", backlog === null ? "not counted yet" : count.format(backlog),
        backlog === null ? null : `pools due, not settled; counted ${age(backlogAge)}`, backlog === null ? "" : backlog ? "warn" : "good")
      : vital("backlog", "the leader's", "only a leader counts it", ""),
    vital("quarantine", count.format(quarantine.pools), "pools that fail", quarantine.pools ? "warn" : "good"));
}

function drawEvents() {
  draw("events", known.events, () => known.events.length ? known.events.map((event) => make("tr", null,
    make("td", null, stamp(event.at)),
    make("td", { class: `kind ${event.kind}` }, event.kind.replace("_", " ")),
    make("td", { class: "fill" }, event.pool_id === null ? "" : make("span", { class: "mono" }, `pool ${event.pool_id} `), event.text,
      event.times > 1 ? make("span", { class: "quiet" }, ` ×${count.format(event.times)}`) : ""),
    make("td", { class: "number", title: "from empty_at to the commit" }, event.lateness_seconds === null ? "" : `+${span(event.lateness_seconds)}`),
  )) : [nothing("Nothing has happened yet.")]);
}

function drawPasses() {
  draw("passes", known.passes, () => known.passes.length ? known.passes.slice(-6).reverse().map((pass) => make("tr", null,
    make("td", null, stamp(pass.ended_at)),
    pass.outcome === "failed" ? make("td", { class: "kind failed fill" }, "failed") : make("td", { class: "fill" },
      (known.dry_run ? "would be " : "") + `${plural(pass.settled, "pool")}, ${plural(pass.decommissioned, "workload")}`
      + (pass.failed_pools ? `, ${count.format(pass.failed_pools)} failed` : "")),
    make("td", { class: "number" }, span(pass.seconds)),
  )) : [nothing("No pool has run empty yet.")]);
  draw("bars", [known.passes, $("bars").clientWidth], () => {
    const wide = $("bars").clientWidth || 400, high = 56, step = wide / 40, first = wide - step * known.passes.length;
    const longest = Math.max(0.1, ...known.passes.map((pass) => pass.seconds));
    return known.passes.map((pass, index) => {
      const height = Math.max(2, high * Math.sqrt(pass.seconds / longest));
      return make("rect", { class: `bar ${pass.outcome}`, x: first + index * step, y: high - height, width: Math.max(1, step - 2), height, rx: 1 },
        make("title", null, `${utc(pass.ended_at)} UTC: ${pass.reason || plural(pass.settled, "pool")}, ${span(pass.seconds)}`));
    });
  });
}

function drawHeld() {
  const { holds, quarantine } = known;
  draw("held", [holds, quarantine], () => {
    const rows = [
      ...holds.map((hold) => make("tr", null, make("td", null, make("span", { class: "quiet" }, "since "), stamp(hold.since_at)),
        make("td", { class: "kind held" }, hold.pools === null ? hold.reason : `${hold.reason}, ${plural(hold.pools, "pool")}`),
        make("td", { class: "fill" }, hold.detail))),
      ...quarantine.first.map((pool) => make("tr", null,
        make("td", null, make("span", { class: "quiet" }, "next try "), stamp(pool.retry_at)),
        make("td", { class: "kind failed mono" }, `pool ${pool.pool_id}`),
        make("td", { class: "fill" }, `${pool.reason} `, make("span", { class: "quiet" }, `×${pool.tries}`)))),
    ];
    const more = quarantine.pools - quarantine.first.length;
    if (more > 0) rows.push(nothing(`and ${count.format(more)} more pools in quarantine`));
    return rows.length ? rows : [nothing("Nothing is held back, and no pool is in quarantine.")];
  });
}

const nothing = (text) => make("tr", null, make("td", { class: "quiet", colspan: 4 }, text));

/* ---- the timeline: now stands still and the pools move towards it; the scale narrows with the distance ---- */

const TICKS = [[10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [21600, "6 h"], [86400, "1 d"], [604800, "7 d"], [2592000, "30 d"]];
const LANES = 4, TICK_ROOM = 42, LETTER = 7;

function drawTimeline() {
  const svg = $("timeline"), wide = svg.clientWidth || 800, base = 118, now = serverNow();
  const future = known.upcoming.map((pool) => ({ ...pool, ahead: pool.empty_at - now })).filter((pool) => pool.ahead > 0);
  const past = known.events.filter((event) => event.lateness_seconds !== null && now - event.at < 3600);
  const furthest = Math.max(3600, ...future.map((pool) => Math.min(pool.ahead, 2592000)));
  const here = wide * 0.24, log = (seconds) => Math.log10(1 + seconds / 5);
  const room = 12 + LETTER * Math.max(4, ...future.map((pool) => String(pool.pool_id).length));
  const right = (seconds) => here + (wide - here - Math.min(room, wide / 4)) * log(seconds) / log(furthest);
  const left = (seconds) => here - (here - 20) * log(seconds) / log(3600);
  const drawn = [
    make("rect", { class: "past", x: 0, y: 0, width: here, height: base }),
    make("line", { class: "axis", x1: 0, x2: wide, y1: base, y2: base }),
  ], flags = [];
  const mark = (x, name, className, top) => drawn.push(make("line", { class: className, x1: x, x2: x, y1: top, y2: base + 5 }),
    make("text", { class: `${className}text`, x: Math.min(x, wide - name.length * LETTER / 2), y: base + 18, "text-anchor": "middle" }, name));
  const ticks = (place, until, sign) => TICKS.filter(([seconds]) => seconds <= until).reduce((last, [seconds, name]) => {
    const x = place(seconds);
    if (Math.abs(x - last) < TICK_ROOM) return last;
    mark(x, sign + name, "axis", base);
    return x;
  }, here);
  ticks(right, furthest, "");
  ticks(left, 3600, "−");
  mark(here, "now", "now", 0);
  const ends = new Array(LANES).fill(-Infinity);
  for (const pool of future) {
    const x = right(Math.min(pool.ahead, furthest)), name = String(pool.pool_id);
    flags.push(...flag(x, base, lane(ends, x, name, wide), name, "start", pool.ahead < SOON_SECONDS ? "soon" : "",
      `pool ${name} of customer ${pool.customer_tid} runs empty at ${when(pool.empty_at)}`));
  }
  ends.fill(-Infinity);
  for (const event of past) {
    const x = left(now - event.at), id = String(event.pool_id), late = `${id} +${span(event.lateness_seconds)}`;
    const whole = lane(ends, here - x, late, here), inLane = whole < 0 ? lane(ends, here - x, id, here) : whole;
    flags.push(...flag(x, base, inLane, whole < 0 ? id : late, "end", "gone", `pool ${event.pool_id}: ${event.text}, at ${when(event.at)}`));
  }
  // Stems lie behind everything, so that they strike out no label.
  svg.replaceChildren(...drawn, ...flags.filter((part) => part.tagName === "line"), ...flags.filter((part) => part.tagName !== "line"));
}

/* The lowest lane in which a label still has room, x being how far from now it is on either side; -1 if there is none. */
function lane(ends, x, name, border) {
  const free = ends.findIndex((end) => end < x - 5);
  const end = x + 10 + name.length * LETTER;
  if (free < 0 || end > border) return -1;
  ends[free] = end;
  return free;
}

/* A pool without a lane is a small dot on the axis. */
function flag(x, base, inLane, name, anchor, className, title) {
  const y = inLane < 0 ? base : base - 14 - 26 * inLane;
  const dot = make("circle", { class: `dot ${className}`, cx: x, cy: y, r: inLane < 0 ? 3 : 4.5 }, make("title", null, title));
  if (inLane < 0) return [dot];
  const label = make("text", { class: "label", x: anchor === "start" ? x + 8 : x - 8, y: y + 4, "text-anchor": anchor }, name);
  return [make("line", { class: "stem", x1: x, x2: x, y1: y, y2: base }), dot, label];
}

/* ---- the round ---- */

function tick() {
  if (silentSince !== null) {
    const heard = known ? ` What follows is from ${utc(known.at)} UTC.` : "";
    say("silence", `The daemon has not answered for ${span((performance.now() - silentSince) / 1000)}.${heard}`);
  } else {
    say("silence", "");
  }
  document.documentElement.classList.toggle("silent", silentSince !== null);
  if (!known) return;
  say("clock", `${utc(serverNow())} UTC`);
  const { at, pool_id: pool } = known.next, left = at === null ? null : at - serverNow();
  const [first] = known.attention, standby = known.role === "standby";
  const ahead = left === null ? "nothing due" : left <= 0 ? "now" : iso(at) ? countdown(left) : "never";
  const shownLeft = first ? first.short : ahead;
  say("waits", first ? "Not done" : standby ? "Next to run empty, for the leader to settle" : known.dry_run ? "Next to run empty; a dry run settles nothing" : "Next to run empty");
  say("countdown", shownLeft, `countdown ${first ? "held" : left === null ? "none" : left < SOON_SECONDS ? "soon" : ""}`);
  const owner = known.upcoming.find((upcoming) => upcoming.pool_id === pool);
  const next = first && left !== null ? "next to run empty: " : "";
  say("next", next + (left === null ? `No ${first ? "other " : ""}pool is known to run empty.` : pool === null ? `Some pool is looked at again,  ${when(at)}`
    : `pool ${pool}${owner ? ` of customer ${owner.customer_tid}` : ""}, ${when(at)}`));
  document.title = silentSince !== null ? "no answer · pool-daemon" : `${first || !standby ? "" : "standby · "}${shownLeft} · pool-daemon`;
}

async function ask() {
  try {
    const answer = await fetch("statusz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(answer.status);
    known = await answer.json();
    knownTick = performance.now();
    silentSince = null;
    for (const part of [drawHead, drawExpiring, drawVitals, drawEvents, drawPasses, drawHeld]) part();
  } catch (error) {
    silentSince ??= performance.now();
  }
  tick();
  if (known) drawTimeline();
  setTimeout(ask, document.hidden ? 10 * POLL_MS : POLL_MS);
}

setInterval(tick, 100);
ask();
