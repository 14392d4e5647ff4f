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
