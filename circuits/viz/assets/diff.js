// The behaviour of a diff's page. The values are in #data; the drawing's edges and nodes stand in the order of data's.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { nodes, edges, answers, unit } = data;
  const $ = (id) => document.getElementById(id);
  const panel = $("components"), live = $("live"), panes = $("panes");

  /** An element with attributes and children; strings become text, never markup. */
  function el(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }
  const number = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(3));
  const text = (value) => (value === null ? "–" : (value < 0 ? "−" : "") + number(Math.abs(value)));

  // ---- two drawings from one -----------------------------------------------------------------------------------------

  const before = document.querySelector("#pane-before svg");
  const after = before.cloneNode(true);
  document.querySelector("#pane-after .canvas").append(after);
  const drawings = [before, after].map((svg) => ({
    svg, paths: [...svg.querySelectorAll(".edge")], groups: [...svg.querySelectorAll(".node")],
  }));

  function show(view) {
    const apart = view === "apart";
    panes.classList.toggle("apart", apart);
    $("pane-after").hidden = !apart;
    before.classList.toggle("shows-before", apart);
    after.classList.add("shows-after");
    document.querySelector("#pane-before figcaption").hidden = !apart;
    live.textContent = apart ? "Circuits side by side" : "Circuits overlaid";
  }
  $("views").addEventListener("change", (event) => show(event.target.value));

  // ---- which edges are shown -----------------------------------------------------------------------------------------

  const into = nodes.map(() => []), out = nodes.map(() => []);
  edges.forEach((edge, i) => {
    edge.index = i;
    edge.shown = true;
    edge.name = `${nodes[edge.from].name}->${nodes[edge.to].name}${edge.slot ? `<${edge.slot}>` : ""}`;
    into[edge.to].push(edge);
    out[edge.from].push(edge);
  });
  const slider = $("threshold"), sliderOut = $("threshold-out");
  slider.max = Math.max(edges.length - 1, 0);
  slider.disabled = !edges.some((edge) => edge.size > 0);

  /** One step of the slider hides the next weakest edge. */
  function applyThreshold() {
    const hidden = Number(slider.value);
    const least = hidden ? edges[edges.length - 1 - hidden].size || 0 : 0;
    let shown = 0;
    for (const edge of edges) {
      edge.shown = (edge.size || 0) >= least;
      shown += edge.shown;
      for (const { paths } of drawings) paths[edge.index].classList.toggle("off", !edge.shown);
    }
    for (const { groups } of drawings) {
      groups.forEach((group, i) => group.classList.toggle("idle", ![...into[i], ...out[i]].some((edge) => edge.shown)));
    }
    sliderOut.textContent = `${least ? `≥ ${number(least)} ${unit}` : "all scores"}: ${shown} of ${edges.length} edges`;
    slider.setAttribute("aria-valuetext", sliderOut.textContent);
  }
  slider.addEventListener("input", applyThreshold);

  // ---- choose a component --------------------------------------------------------------------------------------------

  let chosen = null;

  function light(i) {
    for (const { svg, paths, groups } of drawings) {
      for (const old of svg.querySelectorAll(".lit")) old.classList.remove("lit");
      svg.classList.toggle("focusing", i !== null);
      if (i === null) continue;
      const near = [...into[i], ...out[i]].filter((edge) => edge.shown);
      for (const edge of near) paths[edge.index].classList.add("lit");
      for (const j of [i, ...near.flatMap((edge) => [edge.from, edge.to])]) groups[j].classList.add("lit");
    }
  }

  const stateOf = (node) => (node.before.in && node.after.in ? "kept" : node.before.in ? "lost" : "gained");
  const words = { kept: "in both", lost: "lost", gained: "gained" };

  function listPanel() {
    const items = nodes.map((node, i) => el("li", {}, el("button", { type: "button", onclick: () => select(i, true) },
      el("span", { class: "name" }, node.label),
      el("span", { class: "soft" }, [node.role, node.edited ? "edited" : ""].filter(Boolean).join(", ")),
      el("span", { class: `state ${stateOf(node)}` }, words[stateOf(node)]))));
    panel.replaceChildren(el("h3", { id: "panel-heading" }, "Components"),
      el("p", { class: "meta" }, "Choose one to compare both sides."), el("ul", { class: "list" }, ...items.reverse()));
  }

  function links(title, list, other) {
    if (!list.length) return [];
    const items = list.map((edge) => el("li", {}, el("button",
      { type: "button", title: edge.name, onclick: () => select(other(edge), true) },
      el("span", { class: "slot" }, edge.slot || "•"), el("span", { class: "name" }, nodes[other(edge)].label),
      el("span", { class: `state ${edge.state}` }, words[edge.state]),
      el("span", { class: "soft num" }, edge.state === "kept" ? `${text(edge.before)} → ${text(edge.after)}` : text(edge.state === "lost" ? edge.before : edge.after)))));
    return [el("h4", {}, `${title} (${list.length})`), el("ul", { class: "list links" }, ...items)];
  }

  function nodePanel(i) {
    const node = nodes[i];
    const does = ["before", "after"].filter((side) => node[side].does).map((side) => el("p", { class: "meta" }, `${side === "before" ? "Before" : "After"}: it ${node[side].does}.`));
    const rows = answers.map((answer, a) => el("tr", {}, el("td", {}, answer),
      ...["before", "after"].map((side) => el("td", { class: "num" }, node[side].writes ? text(node[side].writes[a]) : "–"))));
    const table = node.before.writes || node.after.writes ? [el("h4", {}, "Writes (logits)"), el("table", { class: "compare" },
      el("thead", {}, el("tr", {}, el("th", {}, "answer"), el("th", { class: "num" }, "before"), el("th", { class: "num" }, "after"))),
      el("tbody", {}, ...rows))] : [];
    panel.replaceChildren(
      el("div", { class: "head-row" }, el("h3", { id: "panel-heading" }, node.label),
        el("button", { type: "button", id: "back", onclick: () => select(null, true) }, "All components")),
      el("p", { class: "meta" }, [node.kind, node.role, node.edited ? "edited" : "", words[stateOf(node)]].filter(Boolean).join(", ")),
      ...does, ...table, ...links("Reads from", into[i], (edge) => edge.from), ...links("Writes to", out[i], (edge) => edge.to));
    panel.scrollTop = 0;
  }

  function select(i, moveFocus = false) {
    chosen = i;
    for (const { groups } of drawings) groups.forEach((group, j) => group.classList.toggle("chosen", j === i));
    if (i === null) listPanel(); else nodePanel(i);
    light(i);
    live.textContent = i === null ? "All components" : `${nodes[i].label} chosen`;
    if (moveFocus) panel.querySelector("button")?.focus({ preventScroll: true });
  }
  for (const { groups } of drawings) {
    groups.forEach((group, i) => {
      group.setAttribute("tabindex", "0");
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", `${nodes[i].label}, ${words[stateOf(nodes[i])]}`);
      group.addEventListener("click", () => select(chosen === i ? null : i));
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(i, true); }
      });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) select(null, panel.contains(document.activeElement));
  });
  $("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    const i = wanted ? nodes.findIndex((node) => node.label.toLowerCase() === wanted || node.name === wanted) : -1;
    select(i < 0 ? null : i);
  });

  // ---- size ----------------------------------------------------------------------------------------------------------

  const natural = before.viewBox.baseVal.width;
  function zoom(value) {
    for (const { svg } of drawings) {
      svg.style.width = value ? `${natural * value}px` : "100%";
      svg.style.maxWidth = value ? "none" : `${natural * 1.25}px`;
      svg.style.minWidth = value ? "0" : "";
    }
  }
  const scale = () => before.getBoundingClientRect().width / natural;
  $("zoom-in").addEventListener("click", () => zoom(Math.min(scale() * 1.25, 4)));
  $("zoom-out").addEventListener("click", () => zoom(Math.max(scale() / 1.25, 0.2)));
  $("zoom-fit").addEventListener("click", () => zoom(0));

  // ---- the plots: plotly.js comes packed, and runs from memory -------------------------------------------------------

  async function unpack(id) {
    const packed = atob($(id).textContent);
    const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function drawPlots() {
    for (const [name, figure] of Object.entries(data.plots)) {
      const { data: traces, layout } = structuredClone(figure);
      layout.font = { ...layout.font, color: colour("--soft") };
      for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) layout[axis].gridcolor = colour("--line");
      layout.hoverlabel = { bgcolor: colour("--ink"), bordercolor: colour("--ink"), font: { color: colour("--page") } };
      window.Plotly.react($(`plot-${name}`), traces, layout, { responsive: true, displaylogo: false, displayModeBar: false, plotlyServerURL: "" });
    }
  }
  async function startPlots() {
    try {
      const script = el("script");
      script.textContent = await unpack("plotly-packed");
      document.body.append(script);
      script.remove();
      drawPlots();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
    } catch (error) {
      console.warn("no plots:", error);
    }
  }

  listPanel();
  show("apart");
  applyThreshold();
  zoom(0);
  /** For scripts that drive this page. */
  window.kcircuit = { select, show, ready: startPlots() };
})();
