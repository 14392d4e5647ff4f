/* ---- the view of one pool or one owner, which the address behind # names ---- */

const VIEW_MS = 5000, AGAIN_MS = 1200, VIEW_PATIENCE_MS = 8000;
const NAMES = { pools: "Pool", owners: "Owner" };
let view = null;  // what is looked at: { kind, id, answer }

function openView() {
  const match = /^#(pools|owners)\/(-?\d{1,19})$/.exec(location.hash);
  if (view) clearTimeout(view.timer);
  view = match ? { kind: match[1], id: match[2], answer: null, timer: null } : null;
  $("view").hidden = view === null;
  if (view === null) return;
  say("viewname", `${NAMES[view.kind]} ${view.id}`);
  say("viewstate", "is being read …");
  draw("viewbody", null, () => []);
  $("view").scrollIntoView({ block: "nearest" });
  $("viewname").focus({ preventScroll: true });
  askForView(view);
}

async function askForView(asked) {
  let pause = VIEW_MS;
  try {
    const response = await fetch(`${asked.kind}/${asked.id}`, { cache: "no-store", signal: AbortSignal.timeout(VIEW_PATIENCE_MS) });
    if (response.status === 429) pause = AGAIN_MS;
    else asked.answer = { ok: response.ok, status: response.status, shown: parse(await response.text()) };
    if (view === asked && response.status !== 429) drawView(asked);
  } catch (error) {
    if (view === asked) say("viewstate", asked.answer ? "does not answer now; what follows is older" : "cannot be read: the daemon does not answer");
  }
  if (view === asked) asked.timer = setTimeout(askForView, document.hidden ? 12 * pause : pause, asked);
}

function drawView({ kind, id, answer: { ok, shown } }) {
  if (!ok) {
    say("viewstate", "");
    const [otherKind, other] = kind === "pools" ? ["owners", "an owner"] : ["pools", "a pool"];
    draw("viewbody", shown.problem, () => [make("p", { class: "problems" }, shown.problem),
      make("p", { class: "quiet" }, `Is ${id} `, link(otherKind, id, other), "?")]);
    return;
  }
  say("viewstate", `as of ${utc(shown.at)} UTC`);
  draw("viewbody", [{ ...shown, at: 0 }, $("viewbody").clientWidth], () => kind === "pools" ? poolView(shown) : ownerView(shown));
}

function poolView(shown) {
  const known = shown.facts ? [
    make("dl", { class: "facts" }, ...shown.facts.flatMap(([name, text]) => [make("dt", null, name), make("dd", null, ...fact(name, text, shown))])),
    grid("What is left", shown.resource_columns, shown.resources),
    make("p", { class: "quiet" }, shown.purchase_head),
    grid("What to buy", ["resource", "unit seconds", "which is"], shown.purchase),
  ] : [];
  const workloads = shown.facts ? [
    make("h3", null, "Workloads ", make("span", { class: "quiet" }, shown.workloads_head)),
    grid("Workloads", shown.workload_columns, shown.workloads, "dense"),
    shown.more_workloads ? make("p", { class: "quiet" }, `and ${count.format(shown.more_workloads)} more: pool-daemon pools show ${shown.pool} --limit N`) : "",
  ] : [];
  return [...sum(shown), make("div", { class: "parts" }, make("div", null, ...known), make("div", null, story(shown.story))), ...workloads];
}

/* The owner is a link to his other pools. */
function fact(name, text, shown) {
  return name === "owner" ? [link("owners", shown.owner, shown.owner), text.slice(shown.owner.length)] : [text];
}

function sum(shown) {
  const uncompared = shown.is_compared ? "" : ` It lists too many workloads to be compared with them here: pool-daemon explain pool ${shown.pool}`;
  if (!shown.problems.length) return [make("p", { class: "adds" }, shown.is_compared ? "It adds up." : uncompared)];
  return [make("div", { class: "problems" }, make("strong", null, "This does not add up:"), make("ul", null, ...shown.problems.map((problem) => make("li", null, problem)))),
    uncompared ? make("p", { class: "quiet" }, uncompared) : ""];
}

function story(lines) {
  return make("div", null, make("h3", null, "What happened"), make("ol", { class: "story" }, ...lines.map((line) =>
    make("li", null, make("time", line.at === null ? null : { datetime: iso(line.at) }, line.date), make("span", null, line.text)))));
}

function ownerView(shown) {
  if (!shown.pools) return [make("p", { class: "quiet" }, "No pool has this owner.")];
  const total = `${shown.is_counted ? "" : "at least "}${plural(shown.pools, "pool")}`;
  const listed = shown.first.length < shown.pools ? `; the first ${shown.first.length} to run empty${shown.is_sorted ? "" : " of those that were read"}` : "";
  const rows = shown.first.map((pool) => [link("pools", pool.pool_id, pool.pool_id), pool.ends, count.format(pool.workloads)]);
  return [make("p", { class: "quiet" }, `${total}${listed}. All of them: pool-daemon pools list --owner ${shown.owner}`),
    grid("Pools", ["pool", "runs empty (UTC)", "workloads"], rows)];
}

/* A table whose rows become small lists of their own where the window is narrow. */
function grid(name, columns, rows, className = "") {
  if (!rows.length) return "";
  return make("table", { class: `grid ${className}`, "aria-label": name },
    make("thead", null, make("tr", null, ...columns.map((column) => make("th", { scope: "col" }, column)))),
    make("tbody", null, ...rows.map((row) => make("tr", null, ...row.map((cell, index) =>
      make("td", cell === "" ? { class: "empty" } : { "data-label": columns[index] }, cell))))));
}

function lookUp(event) {
  event.preventDefault();
  location.hash = `${event.submitter ? event.submitter.value : "pools"}/${$("lookup").value.trim()}`;
}

$("search").addEventListener("submit", lookUp);
$("timeline").addEventListener("click", (event) => {
  const pool = event.target.dataset.pool;
  if (pool && known.pool_views) location.hash = `pools/${pool}`;
});
addEventListener("hashchange", openView);
addEventListener("keydown", (event) => { if (event.key === "Escape" && view) location.hash = ""; });
