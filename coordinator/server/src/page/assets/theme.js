// Light, dark, or as the system has it. Runs before the page is drawn, so that it is never drawn in the wrong colours.
"use strict";
(() => {
  const themes = ["auto", "light", "dark"];
  let theme = "auto";
  // A browser may forbid storage; the choice then lasts as long as the page.
  try { theme = localStorage.getItem("r2o-theme") || "auto"; } catch { theme = "auto"; }
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  if (!themes.includes(theme)) theme = "auto";
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => { button.textContent = `Theme: ${theme}`; };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      try { localStorage.setItem("r2o-theme", theme); } catch { /* see above */ }
      apply();
      say();
      document.dispatchEvent(new Event("r2o-theme"));
    });
  });
})();
