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

  const BETWEEN = 10_000;  // ms from one refresh to the next: each open page costs the server one
  const RETRY = 15_000;    // ms after which a refused stream or refresh is tried again
  const spread = (longest) => Math.random() * longest;  // so that pages that hear of a change together do not ask together

  let stream = null, paused = false, busy = false, later = 0, retrying = 0, last = -Infinity, lost = false;

  const say = (text) => { note.textContent = text; };

  const refresh = async () => {
    if (busy) { soon(); return; }
    clearTimeout(later);
    later = 0;
    busy = true;
    last = performance.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname.startsWith("/console/sign-in")) { location.reload(); return; }
      if (!answer.ok) { say("The last refresh failed (" + answer.status + "); trying again."); soon(RETRY); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelectorAll("[data-fresh]");
      const old = document.querySelectorAll("[data-fresh]");
      if (fresh.length !== old.length) return;
      old.forEach((part, at) => {
        // whoever reads or types in there is not disturbed
        const open = part.querySelector("details[open]");
        if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
        if (part.querySelector("svg.fading")) return;
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const taken = document.adoptNode(fresh[at]);
        if (open) taken.querySelectorAll("details").forEach((one) => { one.open = true; });
        part.replaceWith(taken);
        if (focused) [...taken.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
      });
      document.title = page.title;
      say("Fresh as of " + new Date().toLocaleTimeString() + ".");
    } catch {
      say("The server does not answer; trying again.");
      soon(RETRY);
    } finally {
      busy = false;
    }
  };

  // One refresh is waited for at most, whatever is heard meanwhile.
  const soon = (least = 0) => {
    if (later || paused || document.hidden) return;
    const wait = Math.max(least, last + BETWEEN - performance.now(), 0);
    later = setTimeout(() => { later = 0; refresh(); }, wait + spread(wait ? 5_000 : 2_000));
  };

  let first = true;  // false once this page may be older than the stream's next word
  const follow = () => {
    if (stream || paused || document.hidden) return;
    stream = new EventSource(where);
    stream.addEventListener("changed", () => {
      // the page is as new as the stream's first word
      if (first) { first = false; say("Follows what happens."); return; }
      soon();
    });
    stream.addEventListener("open", () => { if (lost) { lost = false; say("Follows again."); } });
    stream.addEventListener("over", () => location.reload());
    stream.addEventListener("error", () => {
      // A browser tries again by itself what broke off, but never what was refused (too many streams, signed out).
      if (!stream || stream.readyState !== EventSource.CLOSED) return;
      stop();
      first = false;
      lost = true;
      say("Does not follow; trying again.");
      retrying = setTimeout(follow, RETRY + spread(RETRY / 2));
    });
  };
  const stop = () => {
    clearTimeout(retrying);
    clearTimeout(later);
    later = 0;
    if (stream) { stream.close(); stream = null; }
  };

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

// Copying an id, and "/" for the search.
(() => {
  document.documentElement.classList.add("scripted");

  const copied = async (text) => {
    // The clipboard is there over https and at this machine only.
    if (navigator.clipboard) { await navigator.clipboard.writeText(text); return; }
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    try {
      await copied(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2_000);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    document.getElementById("q")?.focus();
  });
})();

// In a picture of nodes and wires, what belongs to the node under the pointer or the focus stays; the rest fades.
(() => {
  const nodeAt = (event) => event.target.closest?.("[data-node]");

  const light = (node) => {
    const picture = node.closest("svg");
    dim(picture);
    const near = new Set([node.dataset.node]);
    picture.querySelectorAll("[data-ends]").forEach((wire) => {
      const ends = wire.dataset.ends.split(" ");
      if (!ends.includes(node.dataset.node)) return;
      wire.classList.add("lit");
      ends.forEach((end) => near.add(end));
    });
    picture.querySelectorAll("[data-node]").forEach((other) => other.classList.toggle("lit", near.has(other.dataset.node)));
    picture.classList.add("fading");
  };
  const dim = (picture) => {
    picture.classList.remove("fading");
    picture.querySelectorAll(".lit").forEach((part) => part.classList.remove("lit"));
  };

  for (const [enter, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(enter, (event) => { const node = nodeAt(event); if (node) light(node); });
    document.addEventListener(leave, (event) => { const node = nodeAt(event); if (node) dim(node.closest("svg")); });
  }
})();
