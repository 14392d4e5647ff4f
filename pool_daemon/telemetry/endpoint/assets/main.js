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
  drawHero();
}

async function ask() {
  try {
    const answer = await fetch("statusz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(answer.status);
    const first = known === null;
    known = parse(await answer.text());
    knownTick = performance.now();
    silentSince = null;
    $("search").hidden = !known.pool_views;
    $("timeline").classList.toggle("links", known.pool_views);
    for (const part of [drawHead, drawExpiring, drawVitals, drawEvents, drawPasses, drawHeld]) part();
    if (first) openView();
  } catch (error) {
    silentSince ??= performance.now();
  }
  tick();
  if (known) drawTimeline();
  setTimeout(ask, document.hidden ? 10 * POLL_MS : POLL_MS);
}

setInterval(tick, 100);
ask();
