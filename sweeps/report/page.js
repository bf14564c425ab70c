"use strict";
(() => {
  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const paperWidthPx = 660;

  // Replace colour names by the current values in the page's style.
  const resolve = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };

  const draw = (plot, width) => {
    const spec = resolve(specs[plot.dataset.key], getComputedStyle(root));
    const layout = width ? { ...spec.layout, width } : { ...spec.layout, autosize: true };
    return Plotly.react(plot, spec.data, layout, { ...config, responsive: !width });
  };

  // One plot at a time, so that the page can be read and scrolled meanwhile.
  const drawAll = (waiting) => {
    if (!waiting.length) {
      root.dataset.plots = "drawn";
      return;
    }
    draw(waiting[0]).then(() => setTimeout(drawAll, 0, waiting.slice(1)));
  };
  drawAll(plots);

  // The frame in which MLflow shows the page may not follow links, not even within the page.
  document.addEventListener("click", (event) => {
    const target = document.getElementById(event.target.closest('a[href^="#"]')?.hash.slice(1));
    if (!target) return;
    event.preventDefault();
    target.tabIndex = -1;
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => draw(plot)));
  addEventListener("beforeprint", () => {
    root.classList.add("on-paper");
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    plots.forEach((plot) => draw(plot, paperWidthPx));
  });
  addEventListener("afterprint", () => {
    root.classList.remove("on-paper");
    plots.forEach((plot) => draw(plot));
  });
})();
