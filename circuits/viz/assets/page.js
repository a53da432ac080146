// The page's behaviour. The values are in #data; the drawing's edges stand in the order of data.edges, strongest first.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { nodes, edges, answer, unit } = data;
  const FIRST_ROWS = 30;
  const $ = (id) => document.getElementById(id);
  const svg = document.querySelector("#canvas svg");
  const edgePaths = [...svg.querySelectorAll(".edge")];
  const nodeGroups = [...svg.querySelectorAll(".node")];
  const panel = $("components"), tip = $("tip"), live = $("live");

  // ---- small helpers -------------------------------------------------------------------------------------------------

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

  const slotClass = (slot) => slot || "whole";
  const slotName = { q: "query", k: "key", v: "value", "": "whole input" };
  const strength = (edge) => (edge.score === null ? 0 : Math.abs(edge.score));
  const signed = (score) => (score === null ? "not scored" : (score < 0 ? "−" : "+") + number(Math.abs(score)));
  const number = (value) => (value !== 0 && value < 0.001 ? value.toExponential(1) : value.toPrecision(3));
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  const into = nodes.map(() => []), out = nodes.map(() => []);
  edges.forEach((edge, i) => {
    edge.index = i;
    edge.shown = true;
    edge.name = `${nodes[edge.from].name}->${nodes[edge.to].name}${edge.slot ? `<${edge.slot}>` : ""}`;
    into[edge.to].push(edge);
    out[edge.from].push(edge);
  });

  // ---- which edges are shown -----------------------------------------------------------------------------------------

  const slider = $("threshold"), sliderOut = $("threshold-out");
  slider.max = Math.max(edges.length - 1, 0);
  slider.disabled = !edges.some((edge) => strength(edge) > 0);

  /** One step of the slider hides the next weakest edge, so every part of its way does the same amount of work. */
  function applyFilters() {
    const hidden = Number(slider.value);
    const least = hidden ? strength(edges[edges.length - 1 - hidden]) : 0;
    const slots = new Set([...document.querySelectorAll("#slots input:checked")].map((box) => box.value));
    let shown = 0;
    for (const edge of edges) {
      const show = strength(edge) >= least && slots.has(edge.slot);
      if (show !== edge.shown) {
        edge.shown = show;
        edgePaths[edge.index].classList.toggle("off", !show);
        for (const row of edge.rows || []) row.classList.toggle("off", !show);
      }
      shown += show;
    }
    nodeGroups.forEach((group, i) => {
      group.classList.toggle("idle", ![...into[i], ...out[i]].some((edge) => edge.shown));
    });
    // Few edges stand out, many let what is below them through.
    svg.style.setProperty("--edge-opacity", Math.min(0.7, Math.max(0.2, 8 / Math.sqrt(shown || 1))).toFixed(2));
    sliderOut.textContent = `${least ? `≥ ${number(least)} ${unit}` : "all scores"}: ${shown.toLocaleString("en")} of ${count(edges.length, "edge")}`;
    slider.setAttribute("aria-valuetext", sliderOut.textContent);
  }
  slider.addEventListener("input", applyFilters);
  $("slots").addEventListener("change", applyFilters);

  // ---- light up a node's or an edge's surroundings -------------------------------------------------------------------

  let chosen = null;

  function light(litEdges, litNodes) {
    for (const old of svg.querySelectorAll(".lit")) old.classList.remove("lit");
    svg.classList.toggle("focusing", litNodes.length > 0);
    for (const edge of litEdges) edgePaths[edge.index].classList.add("lit");
    for (const i of litNodes) nodeGroups[i].classList.add("lit");
  }

  function lightNode(i) {
    const near = [...into[i], ...out[i]].filter((edge) => edge.shown);
    light(near, [i, ...near.flatMap((edge) => [edge.from, edge.to])]);
  }

  const restore = () => (chosen === null ? light([], []) : lightNode(chosen));

  // ---- tooltip -------------------------------------------------------------------------------------------------------

  function showTip(event, ...children) {
    tip.replaceChildren(...children);
    tip.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 16;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below}px`;
  }

  function hideTip() {
    if (tip.hidden) return;
    tip.hidden = true;
    restore();
  }

  /** The edge under the pointer or a few pixels beside it: a line is thin. */
  function edgeNear(event) {
    for (const [dx, dy] of [[0, 0], [3, 0], [-3, 0], [0, 3], [0, -3], [6, 0], [-6, 0], [0, 6], [0, -6]]) {
      const hit = document.elementFromPoint(event.clientX + dx, event.clientY + dy);
      if (hit?.classList.contains("edge")) return edges[edgePaths.indexOf(hit)];
    }
    return null;
  }

  svg.addEventListener("pointermove", (event) => {
    const group = event.target.closest(".node");
    if (group) {
      const i = nodeGroups.indexOf(group), lens = nodes[i].lens;
      const lines = [el("b", {}, nodes[i].label), `${into[i].length} in, ${out[i].length} out`];
      if (lens) lines.push(`; answer at rank ${lens.rank.toLocaleString("en")}`, el("br"), "Promotes ", lens.promoted.map(([token]) => token).join(", "));
      showTip(event, ...lines);
      lightNode(i);
      return;
    }
    const edge = edgeNear(event);
    if (!edge) return hideTip();
    showTip(event, el("b", {}, edge.name), edge.score === null ? "not scored" : `${signed(edge.score)} ${unit}`);
    light([edge], [edge.from, edge.to]);
  });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => {
    const group = event.target.closest(".node");
    if (group) select(nodeGroups.indexOf(group));
    else if (edgeNear(event) === null) select(null);
  });

  // ---- the panel: a list of components, or one of them ---------------------------------------------------------------

  /** One tab stop for a list; the arrow keys move inside it. */
  function roving(list) {
    const buttons = () => [...list.querySelectorAll("li:not(.off) button")];
    buttons().forEach((button, i) => button.setAttribute("tabindex", i ? -1 : 0));
    list.addEventListener("keydown", (event) => {
      const all = buttons(), at = all.indexOf(document.activeElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined || !all[to]) return;
      event.preventDefault();
      all.forEach((button, i) => button.setAttribute("tabindex", i === to ? 0 : -1));
      all[to].focus();
    });
    return list;
  }

  function listPanel() {
    const weight = (i) => [...into[i], ...out[i]].reduce((sum, edge) => sum + strength(edge), 0);
    const order = nodes.map((_, i) => i).sort((a, b) => weight(b) - weight(a) || a - b);
    const list = roving(el("ul", { class: "list" }, ...order.map((i) => el("li", {},
      el("button", { type: "button", onclick: () => select(i, true), onmouseenter: () => lightNode(i), onmouseleave: restore },
        el("span", { class: "name" }, nodes[i].label),
        el("span", { class: "soft" }, nodes[i].lens?.promoted[0]?.[0] ?? ""),
        el("span", { class: "soft num" }, `${into[i].length} in, ${out[i].length} out`))))));
    panel.replaceChildren(
      el("h3", { id: "panel-heading" }, count(nodes.length, "component")),
      el("p", { class: "meta" }, "Those with the largest scores first. Choose one, here or in the drawing, to see what it promotes."),
      list);
  }

  function tokenTable(name, tokens) {
    return el("div", {}, el("h4", {}, name), el("table", {}, el("tbody", {}, ...tokens.map(([token, logit, isAnswer]) =>
      el("tr", isAnswer ? { class: "answer", title: "the answer" } : {}, el("td", {}, el("code", {}, token)),
        el("td", { class: "num" }, logit.toFixed(2).replace("-", "−")))))));
  }

  function linkList(name, links, other) {
    if (!links.length) return [];
    const items = links.map((edge) => {
      const i = other(edge);
      const item = el("li", { class: edge.shown ? "" : "off" }, el("button",
        { type: "button", class: slotClass(edge.slot), title: edge.name, onclick: () => select(i, true),
          onmouseenter: () => light([edge], [edge.from, edge.to]), onmouseleave: restore },
        el("span", { class: "slot" }, edge.slot || "•"), el("span", { class: "name" }, nodes[i].label),
        el("span", { class: "soft" }, nodes[i].lens?.promoted[0]?.[0] ?? ""),
        el("span", { class: "soft num" }, signed(edge.score))));
      edge.rows = [...(edge.rows || []).filter((row) => row.isConnected && !panel.contains(row)), item];
      return item;
    });
    return [el("h4", {}, `${name} (${links.length})`), roving(el("ul", { class: "list links" }, ...items))];
  }

  function nodePanel(i) {
    const node = nodes[i], lens = node.lens;
    panel.replaceChildren(
      el("div", { class: "head-row" }, el("h3", { id: "panel-heading" }, node.label),
        el("button", { type: "button", id: "back", onclick: () => select(null, true) }, "All components")),
      el("p", { class: "meta" }, `${node.kind}, ${into[i].length} in, ${out[i].length} out`),
      ...(node.head ? [
        el("p", { class: "verdict" }, el("span", { class: `role ${node.head.role}` }, node.head.role), " ", node.head.verdict),
        el("h4", {}, "Attention from the last token"),
        el("ul", { class: "attention" }, ...node.head.attention.map(([token, share]) => {
          const item = el("li", { title: `${(100 * share).toFixed(1)} %` }, el("code", {}, token),
            el("span", { class: "num" }, share >= 0.005 ? `${Math.round(100 * share)} %` : "–"));
          item.style.setProperty("--share", Math.min(share, 1));
          return item;
        })),
      ] : []),
      ...(lens ? [
        el("p", { class: "meta" }, "Answer ", el("code", {}, answer), ` at rank ${lens.rank.toLocaleString("en")} here (probability ${number(lens.probability)})`),
        el("div", { class: "tokens" }, tokenTable("Promotes (logit)", lens.promoted), tokenTable("Suppresses (logit)", lens.suppressed)),
      ] : [el("p", { class: "meta" }, "No lens reading was made for this component.")]),
      ...linkList("Reads from", into[i], (edge) => edge.from),
      ...linkList("Writes to", out[i], (edge) => edge.to));
    panel.scrollTop = 0;
  }

  /** Scroll the drawing, and nothing else, so far that the component can be seen. */
  function reveal(i) {
    const canvas = $("canvas"), box = canvas.getBoundingClientRect(), at = nodeGroups[i].getBoundingClientRect();
    if (at.top < box.top || at.bottom > box.bottom) canvas.scrollTop += at.top - box.top - box.height / 2;
    if (at.left < box.left || at.right > box.right) canvas.scrollLeft += at.left - box.left - box.width / 2;
  }

  /** Choose a component (null: none). `moveFocus` moves the focus along with the panel's new content. */
  function select(i, moveFocus = false) {
    const before = chosen;
    chosen = i;
    nodeGroups.forEach((group, j) => group.classList.toggle("chosen", j === i));
    if (i === null) { if (before !== null || !panel.firstChild) listPanel(); } else nodePanel(i);
    restore();
    if (i !== null) reveal(i);
    if (i !== null) live.textContent = `${nodes[i].label} chosen`;
    if (moveFocus) panel.querySelector("button")?.focus({ preventScroll: true });
    if (i !== null && matchMedia("(max-width: 1080px)").matches) panel.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) select(null, panel.contains(document.activeElement));
  });

  // ---- size of the drawing -------------------------------------------------------------------------------------------

  const natural = svg.viewBox.baseVal.width;
  let zoom = 0;
  function setZoom(value) {
    zoom = value;
    svg.style.width = zoom ? `${natural * zoom}px` : "100%";
    svg.style.maxWidth = zoom ? "none" : `${natural * 1.25}px`;
    svg.style.minWidth = zoom ? "0" : "";
  }
  const scale = () => svg.getBoundingClientRect().width / natural;
  $("zoom-in").addEventListener("click", () => setZoom(Math.min(scale() * 1.25, 4)));
  $("zoom-out").addEventListener("click", () => setZoom(Math.max(scale() / 1.25, 0.2)));
  $("zoom-fit").addEventListener("click", () => setZoom(0));
  setZoom(0);

  // ---- the table of edges --------------------------------------------------------------------------------------------

  const body = document.querySelector("#edges tbody"), top = Math.max(...edges.map(strength), 1e-12);
  const go = (i) => el("button", { type: "button", onclick: () => { select(i); $("circuit-heading").scrollIntoView(); } }, nodes[i].label);
  function edgeRow(edge) {
    const meter = el("span", { class: "meter" });
    meter.style.width = `${(100 * strength(edge)) / top}%`;
    const row = el("tr", { class: `${slotClass(edge.slot)}${edge.shown ? "" : " off"}` },
      el("td", { class: "num" }, `${edge.index + 1}`), el("td", {}, go(edge.from)), el("td", {}, go(edge.to)),
      el("td", { class: "read" }, slotName[edge.slot]), el("td", { class: "num" }, signed(edge.score)),
      el("td", { class: "barcol" }, meter));
    edge.rows = [...(edge.rows || []), row];
    return row;
  }
  body.append(...edges.slice(0, FIRST_ROWS).map(edgeRow));
  const more = $("show-all");
  more.hidden = edges.length <= FIRST_ROWS;
  more.textContent = `Show all ${count(edges.length, "edge")}`;
  more.addEventListener("click", () => {
    body.append(...edges.slice(FIRST_ROWS).map(edgeRow));
    more.hidden = true;
    body.rows[FIRST_ROWS].querySelector("button").focus({ preventScroll: true });
  });

  $("copy").addEventListener("click", async () => {
    const selection = getSelection();
    selection.selectAllChildren($("command"));
    try {
      await navigator.clipboard.writeText($("command").textContent);
      live.textContent = $("copy").textContent = "Copied";
    } catch {
      live.textContent = "The command is selected; copy it with your keyboard.";
    }
  });

  // ---- the plots: plotly.js comes packed, and runs from memory -------------------------------------------------------

  /** The text packed in the page: base64 of a zlib stream. */
  async function unpack(id) {
    const packed = atob($(id).textContent);
    const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  const plots = { trajectory: $("plot-trajectory"), activity: $("plot-activity") };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function drawPlots() {
    for (const [name, place] of Object.entries(plots)) {
      const { data: traces, layout } = structuredClone(data.plots[name]);
      layout.font = { ...layout.font, color: colour("--soft") };
      for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) layout[axis].gridcolor = colour("--line");
      for (const shape of layout.shapes || []) shape.line.color = colour("--v");
      for (const note of layout.annotations || []) note.font = { ...note.font, color: colour("--v") };
      layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") };
      layout.hoverlabel = { bgcolor: colour("--ink"), bordercolor: colour("--ink"), font: { color: colour("--page") } };
      place.classList.remove("waiting");
      window.Plotly.react(place, traces, layout, {
        responsive: true, displaylogo: false, plotlyServerURL: "", scrollZoom: false,
        modeBarButtons: [["toImage", "resetScale2d"]],
      });
    }
  }

  /** What stands in place of the plots in a browser too old to unpack them: their values. */
  function drawTables() {
    const { labels, ranks, probabilities } = data.trajectory;
    plots.trajectory.replaceChildren(el("table", {}, el("tbody", {}, ...labels.map((label, i) => el("tr", {},
      el("td", {}, label), el("td", { class: "num" }, `rank ${ranks[i]}`), el("td", { class: "num" }, number(probabilities[i])))))));
    plots.activity.textContent = plots.activity.getAttribute("aria-label");
    Object.values(plots).forEach((place) => { place.classList.remove("waiting"); place.removeAttribute("role"); });
  }

  async function startPlots() {
    for (const place of Object.values(plots)) { place.classList.add("waiting"); place.textContent = "Drawing…"; }
    try {
      const script = el("script");
      script.textContent = await unpack("plotly-packed");
      document.body.append(script);
      script.remove();
      for (const place of Object.values(plots)) place.replaceChildren();
      drawPlots();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
    } catch (error) {
      console.warn("no plots:", error);
      drawTables();
    }
  }

  listPanel();
  applyFilters();
  /** For scripts that drive this page. */
  window.kcircuit = { select, ready: startPlots() };
})();
