// Makes a page better and is not needed for it: when the server says that something changed, the page is fetched again and the
// parts marked data-fresh are put in place of the old ones.
"use strict";
(() => {
  const where = document.body.dataset.live;
  const note = document.getElementById("fresh");
  if (!where || !note || !window.EventSource) return;

  const pause = document.createElement("button");
  pause.type = "button";
  pause.className = "quiet";
  note.after(" ", pause);

  let stream = null, paused = false, busy = false, again = false;

  const say = (text) => { note.textContent = text; };

  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname.startsWith("/console/sign-in")) { location.reload(); return; }
      if (!answer.ok) { say("The last refresh failed (" + answer.status + ")."); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelectorAll("[data-fresh]");
      const old = document.querySelectorAll("[data-fresh]");
      if (fresh.length !== old.length) return;
      old.forEach((part, at) => {
        // whoever reads or types in there is not disturbed
        const open = part.querySelector("details[open]");
        if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const taken = document.adoptNode(fresh[at]);
        if (open) taken.querySelectorAll("details").forEach((one) => { one.open = true; });
        part.replaceWith(taken);
        if (focused) [...taken.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
      });
      document.title = page.title;
      say("Fresh as of " + new Date().toLocaleTimeString() + ".");
    } catch {
      say("The server does not answer.");
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  };

  let first = true;
  const follow = () => {
    if (stream || paused || document.hidden) return;
    stream = new EventSource(where);
    stream.addEventListener("changed", () => {
      // the page is as new as the stream's first word
      if (first) { first = false; say("Follows what happens."); return; }
      refresh();
    });
    stream.addEventListener("over", () => location.reload());
  };
  const stop = () => { if (stream) { stream.close(); stream = null; } };

  const label = () => { pause.textContent = paused ? "Follow again" : "Pause"; };
  pause.addEventListener("click", () => {
    paused = !paused;
    label();
    if (paused) { stop(); say("Stands still."); } else { refresh(); follow(); }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stop(); } else if (!paused) { if (!first) refresh(); follow(); }
  });
  label();
  follow();
})();
