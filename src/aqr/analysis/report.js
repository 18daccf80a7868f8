"use strict";
(function () {
  const base = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#1d2330" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { t: 10, r: 16, b: 60, l: 56 }, height: 360, hovermode: "closest",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
  };
  const axis = { gridcolor: "#e6e9ef", linecolor: "#c7cdd8", ticks: "outside", tickcolor: "#c7cdd8" };
  const config = { responsive: true, displayModeBar: false };
  // Small multiples: as many columns as there is room for, gaps in pixels.
  const panels = (count, width) => {
    const columns = Math.min(count, width > 760 ? 4 : 2), rows = Math.ceil(count / columns);
    const across = (width - 8) / columns, down = 165, high = rows * down;
    const out = { height: high + 44, margin: { t: 36, r: 8, b: 8, l: 0, pad: 0 } };
    out["legend.y"] = 1 + 4 / high;
    for (let n = 0; n < count; n++) {
      const name = n ? n + 1 : "", column = n % columns, row = Math.floor(n / columns);
      out[`xaxis${name}.domain`] = [(column * across + 46) / (width - 8), ((column + 1) * across - 14) / (width - 8)];
      out[`yaxis${name}.domain`] = [1 - ((row + 1) * down - 34) / high, 1 - (row * down + 20) / high];
    }
    return out;
  };
  const charts = [];
  for (const figure of document.querySelectorAll("#charts figure")) {
    const plot = JSON.parse(figure.querySelector("script").textContent);
    const chart = figure.querySelector(".chart");
    const layout = Object.assign({}, base, plot.layout, { legend: Object.assign({}, base.legend, plot.layout.legend) });
    for (const name of Object.keys(plot.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      layout[name] = Object.assign({}, axis, plot.layout[name]);
    }
    const height = layout.height;
    const sized = (width, fixed) => plot.panels ? panels(plot.panels, width) : { height: fixed || height };
    for (const [key, value] of Object.entries(sized(chart.clientWidth))) {
      const [name, part] = key.split(".");
      if (part) layout[name][part] = value; else layout[name] = value;
    }
    charts.push({ chart, height, panels: plot.panels, sized });
    Plotly.newPlot(chart, plot.data, layout, config).then(() => figure.setAttribute("data-drawn", "yes"));
  }
  window.addEventListener("resize", () => {
    for (const one of charts.filter((each) => each.panels)) Plotly.relayout(one.chart, one.sized(one.chart.clientWidth));
  });
  // Half the width of a printed page, A4 or Letter.
  const paper = 335;
  window.addEventListener("beforeprint", () => {
    for (const { chart, height, sized } of charts) {
      Plotly.relayout(chart, Object.assign(sized(paper, Math.max(280, 0.8 * height)), { width: paper }));
    }
  });
  window.addEventListener("afterprint", () => {
    for (const { chart, sized } of charts) {
      Plotly.relayout(chart, Object.assign(sized(chart.clientWidth), { width: null, autosize: true }));
    }
  });
})();
