// Draws the curves of a job with uPlot, and goes on as steps are committed. The figures are there without it.
"use strict";
(() => {
  const charts = document.querySelector("[data-curves]");
  if (!charts) return;
  const HEIGHT = 170;
  const POINTS = 3000;
  const short = (x) => {
    if (x == null || !Number.isFinite(x)) return "–";
    const a = Math.abs(x);
    if (a === 0) return "0";
    if (a >= 1e5 || a < 1e-3) return x.toExponential(2);
    return String(Number(x.toPrecision(5)));
  };
  const label = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(0) : String(Number(x.toPrecision(6))));

  let columns = { step: [] };
  // A step that was undone goes, with those after it.
  const take = (young) => {
    const first = young.step[0];
    while (columns.step.length && columns.step[columns.step.length - 1] >= first) {
      Object.values(columns).forEach((column) => column.pop());
    }
    for (const [key, column] of Object.entries(young)) columns[key] = (columns[key] || []).concat(column);
    if (columns.step.length > POINTS) {
      const last = columns.step.length - 1;
      for (const key of Object.keys(columns)) columns[key] = columns[key].filter((_, i) => i % 2 === 0 || i === last);
    }
  };

  // Mean over a window of a twentieth of the run, narrower at the ends.
  const smooth = (values) => {
    const half = Math.max(2, Math.floor(values.length / 40));
    return values.map((_, i) => {
      const reach = Math.min(half, i, values.length - 1 - i);
      const run = values.slice(i - reach, i + reach + 1).filter((v) => v != null);
      return run.length ? run.reduce((a, b) => a + b, 0) / run.length : null;
    });
  };

  const figures = [...charts.querySelectorAll("figure")].map((figure) => ({
    figure,
    key: figure.dataset.curve,
    noisy: "noisy" in figure.dataset,
    stairs: "stairs" in figure.dataset,
    zero: "zero" in figure.dataset,
    now: figure.querySelector(".now"),
    place: figure.querySelector(".plot"),
    plot: null,
  }));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const colour = (name) => {
    // The colours of the theme come out of a style sheet's variables only as the colour of an element.
    const probe = document.createElement("i");
    probe.className = `ink ${name}`;
    charts.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };

  const data = (one) => {
    const values = columns[one.key] || [];
    return one.noisy && values.length > 10 ? [columns.step, values, smooth(values)] : [columns.step, values];
  };

  const draw = (one) => {
    const [line, pale, grid, ink] = ["line", "pale", "grid", "dim"].map(colour);
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const values = data(one);
    const two = values.length === 3;
    const series = (stroke, width) => ({
      stroke, width, points: { show: columns.step.length === 1 }, paths: one.stairs ? uPlot.paths.stepped({ align: 1 }) : undefined,
    });
    const options = {
      width: Math.max(200, one.place.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "r2o" }, points: { size: 7 }, drag: { setScale: false, x: false, y: false } },
      scales: {
        x: { time: false },
        y: { range: (_, low, high) => {
          const bottom = one.zero ? Math.min(0, low) : low;
          const room = (high - bottom) * 0.06 || Math.abs(high) * 0.05 || 1;
          return [one.zero && bottom === 0 ? 0 : bottom - room, high + room];
        } },
      },
      series: two ? [{}, series(pale, 1), series(line, 2)] : [{}, series(line, 2)],
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 60, values: (_, ticks) => ticks.map((v) => (Number.isInteger(v) ? String(v) : "")) },
        { ...axis, size: 58, space: 34, values: (_, ticks) => ticks.map(label) },
      ],
      hooks: { setCursor: [(plot) => say(one, plot.cursor.idx)] },
    };
    if (one.plot) one.plot.destroy();
    one.place.replaceChildren();
    one.plot = new uPlot(options, values, one.place);
    one.plot.root.setAttribute("aria-hidden", "true");
    one.series = values.length;
  };

  // The value under the pointer, or the last one.
  const say = (one, at) => {
    const last = columns.step.length - 1;
    const i = at == null ? last : at;
    if (last < 0) return;
    const text = short((columns[one.key] || [])[i]);
    one.now.textContent = at == null ? text : `${text} at step ${columns.step[i]}`;
  };

  let waiting = false;
  const show = (anew) => {
    if (!columns.step.length) return;
    if (waiting && !anew) return;
    waiting = true;
    const paint = () => {
      waiting = false;
      for (const one of figures) {
        const values = data(one);
        if (anew || !one.plot || one.series !== values.length) draw(one);
        else one.plot.setData(values);
        if (one.plot.cursor.idx == null) say(one, null);
      }
    };
    // Who wants little motion gets a new picture now and then.
    if (still.matches && !anew) setTimeout(paint, 5000);
    else requestAnimationFrame(paint);
  };

  const fetchAll = async () => {
    const answer = await fetch(charts.dataset.curves).catch(() => null);
    if (!answer || !answer.ok) return;
    columns = { step: [] };
    take(await answer.json());
    show(true);
  };
  document.addEventListener("r2o-open", fetchAll);
  document.addEventListener("r2o-points", (event) => { take(event.detail); show(false); });
  document.addEventListener("r2o-theme", () => show(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(true));
  new ResizeObserver(() => figures.forEach((one) => {
    if (one.plot) one.plot.setSize({ width: Math.max(200, one.place.clientWidth), height: HEIGHT });
  })).observe(charts);
})();
