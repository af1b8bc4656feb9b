// Light, dark, or as the system has it: before the first paint, hence no module.
"use strict";
(function () {
  const order = ["auto", "light", "dark"];
  const words = { auto: "as the system", light: "light", dark: "dark" };
  let theme = "auto";
  try {
    theme = localStorage.getItem("penstock-theme") || "auto";
  } catch {
    theme = "auto"; // storage is off: the choice holds until the page is left
  }
  function show() {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = theme === "auto" ? "Auto" : theme === "light" ? "Light" : "Dark";
      button.setAttribute("aria-label", "Theme: " + words[theme]);
    }
  }
  window.penstockTheme = function () {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try {
      localStorage.setItem("penstock-theme", theme);
    } catch {
      // as above
    }
    show();
  };
  show();
  document.addEventListener("DOMContentLoaded", function () {
    show();
    document.getElementById("theme").addEventListener("click", window.penstockTheme);
  });
})();
