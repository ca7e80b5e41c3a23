// What the theme adds after loading: blocks of code with a copy button are landmarks and get names of their own, wide
// tables scroll by key.
let blocks = 0;
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([aria-label])"))
    nav.setAttribute("aria-label", `Code ${++blocks}`);
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])"))
    table.setAttribute("tabindex", "0");
}).observe(document.documentElement, { childList: true, subtree: true });
