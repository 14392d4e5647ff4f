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
  const { last_pass: pass, stream, clocks, brake, quarantine, grace, backlog, backlog_age_seconds: backlogAge, database } = known;
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
      brake && `since ${when(brake.since_at)}`, brake ? "warn" : "good"),
    known.role === "leader"
      ? vital("backlog", backlog === null ? "not counted yet" : count.format(backlog),
        backlog === null ? null : `pools due, not settled; counted ${age(backlogAge)}`, backlog === null ? "" : backlog ? "warn" : "good")
      : vital("backlog", "the leader's", "only a leader counts it", ""),
    vital("quarantine", count.format(quarantine.pools), "pools that fail", quarantine.pools ? "warn" : "good"),
    grace.pools === null ? "" : vital("grace", count.format(grace.pools), "pools in grace", ""));
}

function drawEvents() {
  draw("events", [known.events, known.pool_views], () => known.events.length ? known.events.map((event) => make("tr", null,
    make("td", null, stamp(event.at)),
    make("td", { class: `kind ${event.kind}` }, event.kind.replace("_", " ")),
    make("td", { class: "fill" }, event.pool_id === null ? "" : make("span", { class: "mono" }, link("pools", event.pool_id, `pool ${event.pool_id}`), " "), event.text,
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
  $("bars").toggleAttribute("hidden", !known.passes.length);
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
        make("td", { class: "kind failed mono" }, link("pools", pool.pool_id, `pool ${pool.pool_id}`)),
        make("td", { class: "fill" }, `${pool.reason} `, make("span", { class: "quiet" }, `×${pool.tries}`)))),
    ];
    const more = quarantine.pools - quarantine.first.length;
    if (more > 0) rows.push(nothing(`and ${count.format(more)} more pools in quarantine`));
    return rows.length ? rows : [nothing("Nothing is held back, and no pool is in quarantine.")];
  });
}

const nothing = (text) => make("tr", null, make("td", { class: "quiet", colspan: 4 }, text));
