"use strict";
(function () {
  const base = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#1d2330" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { t: 10, r: 16, b: 48, l: 56 }, height: 360, hovermode: "closest",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
  };
  const axis = { gridcolor: "#e6e9ef", linecolor: "#c7cdd8", ticks: "outside", tickcolor: "#c7cdd8" };
  const config = { responsive: true, displayModeBar: false };
  for (const figure of document.querySelectorAll("#charts figure")) {
    const plot = JSON.parse(figure.querySelector("script").textContent);
    const layout = Object.assign({}, base, plot.layout);
    for (const name of Object.keys(plot.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      layout[name] = Object.assign({}, axis, plot.layout[name]);
    }
    figure.querySelector(".chart").dataset.height = layout.height;
    Plotly.newPlot(figure.querySelector(".chart"), plot.data, layout, config)
      .then(() => figure.setAttribute("data-drawn", "yes"));
  }
  // Half the width of a printed page, A4 or Letter.
  const paper = (height) => ({ width: 335, height: Math.max(280, 0.8 * height) });
  const screen = (height) => ({ width: null, height: height, autosize: true });
  for (const [moment, size] of [["beforeprint", paper], ["afterprint", screen]]) {
    window.addEventListener(moment, () => {
      for (const chart of document.querySelectorAll("#charts .chart")) {
        Plotly.relayout(chart, size(Number(chart.dataset.height)));
      }
    });
  }
})();
