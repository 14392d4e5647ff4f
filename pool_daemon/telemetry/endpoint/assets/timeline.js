/* ---- the timeline: now stands still and the pools move towards it; the scale narrows with the distance ----
   Above the axis stands each of the next pools by name; in the band below it one sees how many there are. */

const TICKS = [[10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [21600, "6 h"], [86400, "1 d"], [604800, "7 d"], [2592000, "30 d"]];
const LANES = 4, LANE_HIGH = 26, TICK_ROOM = 42, LETTER = 7;
const AXIS = 118, BAND = 126, BAND_HIGH = 40, BOTTOM = BAND + BAND_HIGH, COLUMN = 6;
const NAMED = 20; // so many pools are named
const FULL = 10;  // so many pools, at least, make a full column
const PAST_SECONDS = 3600, NOW_SHARE = 0.24;

/* The scale: where something is drawn that lies so many seconds ahead or behind, and the way back. */
function scale(wide, furthest, longest) {
  const here = wide * NOW_SHARE, log = (seconds) => Math.log10(1 + seconds / 5);
  const ahead = wide - here - Math.min(12 + LETTER * longest, wide / 4), behind = here - 20;
  return {
    wide, here, furthest,
    right: (seconds) => here + ahead * log(seconds) / log(furthest),
    left: (seconds) => here - behind * log(seconds) / log(PAST_SECONDS),
    secondsAt: (x) => 5 * (10 ** ((x - here) / ahead * log(furthest)) - 1),
  };
}

function drawTimeline() {
  const svg = $("timeline"), now = serverNow();
  const future = known.upcoming.map((pool) => ({ ...pool, ahead: pool.empty_at - now })).filter((pool) => pool.ahead > 0);
  const past = known.events.filter((event) => event.lateness_seconds !== null && now - event.at < PAST_SECONDS);
  const intervals = (known.density ? known.density.intervals : []).filter(([, until]) => until > now);
  const furthest = Math.max(3600, ...future.map((pool) => Math.min(pool.ahead, 2592000)), ...intervals.map(([, until]) => until - now));
  const on = scale(svg.clientWidth || 800, furthest, Math.max(4, ...future.map((pool) => String(pool.pool_id).length)));
  const flags = [...futureFlags(future, on), ...pastFlags(past, on, now)];
  const total = Math.round(intervals.reduce((sum, interval) => sum + stillAhead(interval, now), 0));
  const band = total > NAMED ? intervals : [];  // what is named already needs no band
  sayAhead(future, total, now);
  $("bandkey").hidden = !band.length;
  // Stems lie behind everything, so that they strike out no label.
  svg.replaceChildren(...drawAxis(on), ...drawBand(band, on, now), ...drawLost(on),
    ...flags.filter((part) => part.tagName === "line"), ...flags.filter((part) => part.tagName !== "line"));
}

/* How many pools are still ahead: those of the interval in which now lies, in proportion. */
const stillAhead = ([after, until, pools], now) => pools * Math.min(1, (until - now) / (until - after));

function sayAhead(future, total, now) {
  const { density, expiring_age_seconds: counted } = known;
  const isWhole = density && density.until - density.after >= 604800;
  let text = future.length ? `the next ${plural(future.length, "pool")}` : "no pool is known to run empty";
  if (total > NAMED) {
    text = `the next ${count.format(future.length)} of ${isWhole ? "" : "more than "}${count.format(total)} pools that run empty within ${isWhole ? "7 days" : span(density.until - now)}`;
  }
  say("ahead", text);
  $("ahead").title = density ? `counted ${age(counted)}` : "not counted yet";
  $("timeline").setAttribute("aria-label", `Timeline: ${text}`);
}

function drawAxis(on) {
  const { wide, here, furthest } = on;
  const drawn = [
    make("rect", { class: "past", x: 0, y: 0, width: here, height: BOTTOM }),
    make("line", { class: "axis", x1: 0, x2: wide, y1: AXIS, y2: AXIS }),
    make("line", { class: "axis", x1: 0, x2: wide, y1: BOTTOM, y2: BOTTOM }),
  ];
  const mark = (x, name, className, top) => drawn.push(
    make("line", { class: className, x1: x, x2: x, y1: top, y2: BOTTOM + 5 }),
    make("text", { class: `${className}text`, x: Math.min(x, wide - name.length * LETTER / 2), y: BOTTOM + 18, "text-anchor": "middle" }, name));
  const ticks = (place, until, sign) => TICKS.filter(([seconds]) => seconds <= until).reduce((last, [seconds, name]) => {
    const x = place(seconds);
    if (Math.abs(x - last) < TICK_ROOM) return last;
    mark(x, sign + name, "axis", AXIS);
    return x;
  }, here);
  ticks(on.right, furthest, "");
  ticks(on.left, PAST_SECONDS, "−");
  mark(here, "now", "now", 0);
  return drawn;
}

/* The band: its columns are equally wide, so that a full one means many pools close together on this scale. */
function drawBand(intervals, on, now) {
  const columns = new Map();
  for (const interval of intervals) {
    const [after, until] = interval;
    const begin = on.right(Math.max(0, after - now)), end = Math.max(on.right(until - now), begin + 0.01);
    for (let column = Math.floor((begin - on.here) / COLUMN); on.here + column * COLUMN < end; column += 1) {
      const x = on.here + column * COLUMN, part = Math.min(end, x + COLUMN) - Math.max(begin, x);
      columns.set(column, (columns.get(column) || 0) + stillAhead(interval, now) * part / (end - begin));
    }
  }
  const most = Math.max(FULL, ...columns.values());
  return [...columns].map(([column, pools]) => {
    const x = on.here + column * COLUMN, height = Math.max(2, BAND_HIGH * Math.sqrt(pools / most));
    const from = when(now + on.secondsAt(x)), until = when(now + on.secondsAt(x + COLUMN));
    return make("rect", { class: "density", x: x + 0.5, y: BOTTOM - height, width: COLUMN - 1, height },
      make("title", null, `about ${plural(Math.max(1, Math.round(pools)), "pool")} from ${from} to ${until}`));
  });
}

/* Behind now the band shows what was decommissioned, half a minute a bar. */
function drawLost(on) {
  const { intervals } = known.destruction, seconds = serverNow() - known.at;
  const most = Math.max(...intervals.map(([, , , workloads]) => workloads));
  return intervals.map(([began, last, pools, workloads]) => {
    const begin = on.left(began + seconds), end = on.left(last + seconds), width = Math.max(COLUMN, end - begin);
    const height = Math.max(3, BAND_HIGH * Math.sqrt(workloads / most));
    return make("rect", { class: "lost", x: end - width, y: BOTTOM - height, width, height },
      make("title", null, `${plural(workloads, "workload")} of ${plural(pools, "pool")} decommissioned from ${when(known.at - began)} to ${when(known.at - last)}`));
  });
}

function futureFlags(future, on) {
  const ends = new Array(LANES).fill(-Infinity);
  return future.flatMap((pool) => {
    const x = on.right(Math.min(pool.ahead, on.furthest)), name = String(pool.pool_id);
    return flag(x, lane(ends, x, name, on.wide), name, "start", pool.ahead < SOON_SECONDS ? "soon" : "",
      `pool ${name} of customer ${pool.customer_tid} runs empty at ${when(pool.empty_at)}`, name);
  });
}

function pastFlags(past, on, now) {
  const ends = new Array(LANES).fill(-Infinity);
  return past.flatMap((event) => {
    const x = on.left(now - event.at), id = String(event.pool_id), late = `${id} +${span(event.lateness_seconds)}`;
    const whole = lane(ends, on.here - x, late, on.here), inLane = whole < 0 ? lane(ends, on.here - x, id, on.here) : whole;
    return flag(x, inLane, whole < 0 ? id : late, "end", "gone", `pool ${event.pool_id}: ${event.text}, at ${when(event.at)}`, id);
  });
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
function flag(x, inLane, name, anchor, className, title, pool) {
  const y = inLane < 0 ? AXIS : AXIS - 14 - LANE_HIGH * inLane;
  const dot = make("circle", { class: `dot ${className}`, cx: x, cy: y, r: inLane < 0 ? 3 : 4.5, "data-pool": pool }, make("title", null, title));
  if (inLane < 0) return [dot];
  const label = make("text", { class: "label", "data-pool": pool, x: anchor === "start" ? x + 8 : x - 8, y: y + 4, "text-anchor": anchor }, name);
  return [make("line", { class: "stem", x1: x, x2: x, y1: y, y2: AXIS }), dot, label];
}
