// A table that is wider than a phone scrolls in a frame that the theme puts around it; the keyboard has to reach it, too.
const reachable = () => document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((frame) => { frame.tabIndex = 0; });
new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true });
reachable();
