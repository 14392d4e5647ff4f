/* ---- the headline: what is not done comes first, then what was decommissioned, then what runs empty next ---- */

function drawHero() {
  const [attention] = known.attention, { recent } = known.destruction, next = nextToEnd();
  const lead = attention ? attentionLead(attention, recent) : recent ? destructionLead(recent) : next;
  say("waits", lead.name);
  say("countdown", lead.value, `countdown ${lead.className}`);
  draw("next", lead.detail, () => lead.detail.map(linked));
  $("hero").className = `next ${lead.section || ""}`;
  $("then").hidden = lead === next;
  if (lead !== next) {
    say("thencount", next.value, `countdown small ${next.className}`);
    draw("thennext", next.detail, () => next.detail.map(linked));
  }
  const standby = !attention && known.role === "standby" ? "standby · " : "";
  document.title = silentSince !== null ? "no answer · pool-daemon" : `${standby}${lead.title || lead.value} · pool-daemon`;
}

/* A detail is text, or [kind, id, text] for a link. */
const linked = (part) => Array.isArray(part) ? link(...part) : part;

function attentionLead(attention, recent) {
  const detail = recent ? [`${lost(recent)} decommissioned in the last ${span(known.destruction.period_seconds)}`] : [];
  return { name: "Not done", value: attention.short, className: "held", section: "attention", detail };
}

const lost = (recent) => `${plural(recent.workloads, "workload")} of ${plural(recent.pools, "pool")}`;

function destructionLead(recent) {
  const rate = recent.per_second;
  const per = rate >= 1.5 ? `${count.format(Math.round(rate))} workloads a second` : "about a workload a second or less";
  return {
    name: `Decommissioned in the last ${span(known.destruction.period_seconds).replace("min", "minutes")}`,
    value: lost(recent),
    title: `${plural(recent.workloads, "workload")} decommissioned`,
    className: "lost",
    section: rate === null ? "destroyed" : "destroying",
    detail: [rate === null ? `the last ${age(recent.last_age_seconds)}` : `now ${per}`],
  };
}

function nextToEnd() {
  const { at, pool_id: pool } = known.next, left = at === null ? null : at - serverNow();
  const value = left === null ? "nothing due" : left <= 0 ? "now" : iso(at) ? countdown(left) : "never";
  const name = known.role === "standby" ? "Next to run empty, for the leader to settle"
    : known.dry_run ? "Next to run empty; a dry run settles nothing" : "Next to run empty";
  return { name, value, className: left === null ? "none" : left < SOON_SECONDS ? "soon" : "", detail: nextDetail(at, pool) };
}

function nextDetail(at, pool) {
  if (at === null) return ["No pool is known to run empty."];
  if (pool === null) return [`Some pool is looked at again, ${when(at)}`];
  const upcoming = known.upcoming.find((each) => each.pool_id === pool);
  const owner = upcoming ? [" of ", ["owners", upcoming.customer_tid, `customer ${upcoming.customer_tid}`]] : [];
  return [["pools", pool, `pool ${pool}`], ...owner, `, ${when(at)}`];
}
