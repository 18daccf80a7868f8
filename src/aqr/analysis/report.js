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
    Plotly.newPlot(figure.querySelector(".chart"), plot.data, layout, config)
      .then(() => figure.setAttribute("data-drawn", "yes"));
  }
})();
