// The behaviour of a run's page. The drawing's edges stand in the order of data.edges, strongest first.
(() => {
  const { $, el, number, signed, count, say, wire, parts, light, roving, walkable, zoomable, reveal, findable, copyable, addressed, still, savable, plots } = kit;
  const data = JSON.parse($("data").textContent);
  const { nodes, edges, answer, unit, tokens } = data;
  const FIRST_ROWS = 30;
  const panel = $("components"), tip = $("tip");
  const { into, out, near } = wire(nodes, edges);
  const map = $("map");
  const drawing = map ? overview(map, nodes, edges, data.map) : inFull(parts(document.querySelector("#canvas svg")));
  const { svg, groups } = drawing;

  /** The drawing of a circuit of which every edge is a line of its own. */
  function inFull(whole) {
    const { paths } = whole;
    return {
      ...whole, box: whole.svg,
      light: (litEdges, litNodes) => light(whole, litEdges, litNodes),
      show: () => edges.forEach((edge) => paths[edge.index].classList.toggle("off", !edge.shown)),
      /** The edge under the pointer or a few pixels beside it: a line is thin. */
      edgeAt(event) {
        for (const [dx, dy] of [[0, 0], [3, 0], [-3, 0], [0, 3], [0, -3], [6, 0], [-6, 0], [0, 6], [0, -6]]) {
          const hit = document.elementFromPoint(event.clientX + dx, event.clientY + dy);
          if (hit?.classList.contains("edge")) return edges[paths.indexOf(hit)];
        }
        return null;
      },
    };
  }

  const slotClass = (slot) => slot || "whole";
  const slotName = { q: "query", k: "key", v: "value", "": "whole input" };
  const strength = (edge) => (edge.score === null ? 0 : Math.abs(edge.score));
  const kindOf = (node) => [node.kind, node.role && node.role !== "other" ? `${node.role} head` : ""].filter(Boolean).join(", ");
  const promoted = (node) => node.lens?.promoted[0]?.[0] ?? "";

  // ---- which edges are shown -----------------------------------------------------------------------------------------

  const slider = $("threshold"), sliderOut = $("threshold-out");
  slider.max = Math.max(edges.length - 1, 0);
  slider.disabled = !edges.some((edge) => strength(edge) > 0);
  if (map) slider.value = Math.max(edges.length - data.map.strongest, 0);

  /** One step of the slider hides the next weakest edge, so every part of its way does the same amount of work. */
  function applyFilters() {
    const hidden = Number(slider.value);
    const least = hidden ? strength(edges[edges.length - 1 - hidden]) : 0;
    const slots = new Set([...document.querySelectorAll("#slots input:checked")].map((box) => box.value));
    let shown = 0;
    for (const edge of edges) {
      const show = strength(edge) >= least && slots.has(edge.slot);
      // On an overview the slider says what is drawn unasked; a component that is asked shows all of its own.
      const asked = map ? slots.has(edge.slot) : show;
      if (asked !== edge.asked) for (const row of edge.rows || []) row.classList.toggle("off", !asked);
      edge.shown = show;
      edge.asked = asked;
      shown += show;
    }
    drawing.show(edges.filter((edge) => edge.shown));
    groups.forEach((group, i) => group.classList.toggle("idle", !near[i].some((edge) => edge.asked)));
    // Few edges stand out, many let what is below them through.
    const opacity = Math.min(0.7, Math.max(0.2, 8 / Math.sqrt(shown || 1))).toFixed(2);
    if (svg.style.getPropertyValue("--edge-opacity") !== opacity) svg.style.setProperty("--edge-opacity", opacity);
    sliderOut.textContent = `${least ? `≥ ${number(least)} ${unit}` : "all scores"}: ${shown.toLocaleString("en")} of ${count(edges.length, "edge")}`;
    slider.setAttribute("aria-valuetext", sliderOut.textContent);
  }
  slider.addEventListener("input", applyFilters);
  $("slots").addEventListener("change", applyFilters);

  // ---- light up a node's or an edge's surroundings -------------------------------------------------------------------

  let chosen = null;
  const ends = (list) => list.flatMap((edge) => [edge.from, edge.to]);
  const lightEdge = (edge) => drawing.light([edge], [edge.from, edge.to]);

  function lightNode(i) {
    const seen = near[i].filter((edge) => edge.asked);
    drawing.light(seen, [i, ...ends(seen)]);
  }

  /** The chosen one's own edges and its strongest way; on an overview, faintly, every other live way through it. */
  function lightChosen(i) {
    const way = ways(i), lit = new Set(near[i].filter((edge) => edge.asked)), faint = [];
    for (const edge of way.strongest) lit.add(edge);
    if (map) for (const edge of way.edges) if (!lit.has(edge)) faint.push(edge);
    drawing.light([...lit], [i, ...ends([...lit]), ...ends(faint)], faint, way.strongest);
  }

  let lane = null;
  function restore() {
    if (chosen !== null) lightChosen(chosen);
    else if (lane) lightMany(lane);
    else drawing.light([], []);
  }
  function lightMany(members) {
    const own = new Set(members), seen = edges.filter((edge) => edge.shown && (own.has(edge.from) || own.has(edge.to)));
    drawing.light(seen, [...members, ...ends(seen)]);
  }

  // ---- the ways from the input through a component to the logits -----------------------------------------------------

  /** Edges that a value of the prompt passes: live ones, into a head by v alone. q and k say where a head looks. */
  const passes = (edge) => edge.live && edge.slot !== "q" && edge.slot !== "k";
  const widest = { up: [], down: [] };
  /** For each node the passing edge that begins (or ends) its widest way: the one whose weakest edge is strongest. */
  function widen() {
    const best = (order, list, far, end) => {
      const width = nodes.map((_, i) => (i === end ? Infinity : -1)), step = nodes.map(() => null);
      for (const i of order) for (const edge of list[i]) {
        const reach = passes(edge) ? Math.min(strength(edge), width[far(edge)]) : -1;
        if (reach > width[i]) { width[i] = reach; step[i] = edge; }
      }
      return { width, step };
    };
    // Nodes stand by depth, so every edge leads from an earlier one to a later one.
    const forth = nodes.map((_, i) => i);
    widest.up = best([...forth].reverse(), out, (edge) => edge.to, nodes.findIndex((node) => node.name === "logits"));
    widest.down = best(forth, into, (edge) => edge.from, nodes.findIndex((node) => node.name === "input"));
  }
  widen();

  /** All passing edges on ways from the input through component i to the logits, and the widest of these ways. */
  function ways(i) {
    const { up, down } = widest, found = [], strongest = [];
    if (up.width[i] < 0 || down.width[i] < 0) return { edges: found, strongest };
    for (const [list, far, ends] of [[out, "to", up], [into, "from", down]]) {
      const seen = new Set([i]), queue = [i];
      while (queue.length) for (const edge of list[queue.pop()]) {
        if (!passes(edge) || ends.width[edge[far]] < 0) continue;
        found.push(edge);
        if (!seen.has(edge[far])) { seen.add(edge[far]); queue.push(edge[far]); }
      }
    }
    for (let j = i; down.step[j]; j = down.step[j].from) strongest.unshift(down.step[j]);
    for (let j = i; up.step[j]; j = up.step[j].to) strongest.push(up.step[j]);
    return { edges: found, strongest };
  }

  function wayOf(i) {
    const way = ways(i).strongest;
    if (!way.length) {
      const steers = out[i].some((edge) => edge.slot === "q" || edge.slot === "k");
      return [el("p", { class: "meta" }, steers
        ? "No way leads through it to the logits on which every head is read through v: it says where other heads look."
        : "No way leads from the input through it to the logits on which every head is read through v.")];
    }
    const stop = (j) => el("li", {}, el("button", { type: "button", class: j === i ? "here" : null, onclick: () => select(j, true) }, nodes[j].label));
    return [el("h4", {}, "Its strongest way"), el("ol", { class: "way" }, stop(way[0].from), ...way.map((edge) => stop(edge.to))),
      el("p", { class: "hint" }, `The way from the input to the logits whose weakest edge is strongest (${number(Math.min(...way.map(strength)))} ${unit}).`)];
  }

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
    pointed = null;
    restore();
  }

  let pointed = null;
  svg.addEventListener("pointermove", (event) => {
    if (event.buttons) return;
    const group = event.target.closest(".node");
    if (group) {
      const i = groups.indexOf(group), lens = nodes[i].lens;
      if (pointed === group) return;
      pointed = group;
      const lines = [el("b", {}, nodes[i].label), `${kindOf(nodes[i])}; ${into[i].length} in, ${out[i].length} out`];
      if (lens) lines.push(`; answer at rank ${lens.rank.toLocaleString("en")}`, el("br"), "Promotes ", lens.promoted.map(([token]) => token).join(", "));
      showTip(event, ...lines);
      lightNode(i);
      return;
    }
    const edge = drawing.edgeAt(event);
    if (!edge) return hideTip();
    pointed = edge;
    showTip(event, el("b", {}, edge.name), edge.score === null ? "not scored" : `${signed(edge.score)} ${unit}`);
    lightEdge(edge);
  });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => {
    const group = event.target.closest(".node");
    if (group) select(groups.indexOf(group));
    else if (drawing.edgeAt(event) === null) select(null);
  });

  // ---- the panel: a list of components, or one of them ---------------------------------------------------------------

  const weight = (i) => near[i].reduce((sum, edge) => sum + strength(edge), 0);
  /** The components, or some of them under a name of their own. */
  function listPanel(some, heading, meta) {
    const order = (some ?? nodes.map((_, i) => i)).sort((a, b) => weight(b) - weight(a) || a - b);
    const list = roving(el("ul", { class: "list" }, ...order.map((i) => el("li", {},
      el("button", { type: "button", onclick: () => select(i, true), onmouseenter: () => lightNode(i), onmouseleave: restore },
        el("span", { class: "name" }, nodes[i].label),
        el("span", { class: "soft" }, promoted(nodes[i])),
        el("span", { class: "soft num" }, `${into[i].length} in, ${out[i].length} out`))))));
    panel.replaceChildren(
      el("div", { class: "head-row" }, el("h3", { id: "panel-heading" }, heading ?? count(nodes.length, "component")), ...(some ? [back()] : [])),
      el("p", { class: "meta" }, meta ?? "Those with the largest scores first, each with the token it promotes most. Choose one, here or in the drawing, to see more."),
      list);
    panel.scrollTop = 0;
  }

  const back = () => el("button", { type: "button", id: "back", onclick: () => select(null, true) }, "All components");

  function tokenTable(name, entries) {
    return el("div", {}, el("h4", {}, name), el("table", {}, el("tbody", {}, ...entries.map(([token, logit, isAnswer]) =>
      el("tr", isAnswer ? { class: "answer", title: "the answer" } : {}, el("td", {}, el("code", {}, token)),
        el("td", { class: "num" }, logit.toFixed(2).replace("-", "−")))))));
  }

  /** A head's attention over the prompt, from the last token at first; a press on another token looks from there. */
  function attentionOf(rows) {
    const from = el("code", {}), list = el("ul", { class: "attention" });
    function look(query) {
      const row = rows[query], held = list.contains(document.activeElement);
      from.textContent = tokens[query];
      list.replaceChildren(...tokens.map((token, i) => {
        const share = row[i] ?? 0, said = i > query ? "not seen yet" : share >= 0.005 ? `${Math.round(100 * share)} %` : "–";
        const button = el("button", { type: "button", "aria-pressed": i === query, class: i > query ? "unseen" : null,
          "aria-label": `${token}: ${said}`, title: `Attention from ${token}`, onclick: () => look(i) },
        el("code", {}, token), el("span", { class: "num" }, i > query ? " " : said));
        button.style.setProperty("--share", Math.min(share, 1));
        return el("li", {}, button);
      }));
      if (held) list.children[query].firstChild.focus();
    }
    look(rows.length - 1);
    return [el("h4", {}, "Attention from ", from), list, el("p", { class: "hint" }, "Choose another token to look from there.")];
  }

  /** What an MLP writes of the answer, which heads' reading that hangs on, and which of its neurons write it. */
  function answerOf(mlp) {
    const logits = (value) => value.toFixed(2).replace("-", "−").replace(/^(?!−)/, "+");
    const feeders = mlp.feeders.map(([label, effect]) => {
      const i = nodes.findIndex((node) => node.label === label);
      const button = { type: "button", onclick: () => select(i, true), disabled: i < 0 ? "" : null };
      return el("li", {}, el("button", button, el("span", { class: "name" }, label),
        el("span", { class: "soft" }, i < 0 ? "not in the circuit" : promoted(nodes[i])), el("span", { class: "soft num" }, logits(effect))));
    });
    return [
      el("h4", {}, "Its part in the answer"),
      el("p", { class: "meta" }, `It writes ${logits(mlp.writes)} logits of `, el("code", {}, answer),
        `: rank ${mlp.without.toLocaleString("en")} without its write, ${mlp.with.toLocaleString("en")} with it.`),
      ...(feeders.length ? [el("h4", {}, "Heads that feed it (logits it falls without them)"), roving(el("ul", { class: "list" }, ...feeders))] : []),
      ...(mlp.neurons.length ? [el("h4", {}, "Neurons that write it most (logits)"), el("table", { class: "neurons" }, el("tbody", {}, ...mlp.neurons.map(([index, value, words]) =>
        el("tr", {}, el("th", { scope: "row" }, `${index}`), el("td", {}, ...words.flatMap((word) => [el("code", {}, word), " "])), el("td", { class: "num" }, logits(value))))))] : []),
    ];
  }

  function linkList(name, links, other) {
    if (!links.length) return [];
    const items = links.map((edge) => {
      const i = other(edge);
      const item = el("li", { class: edge.asked ? "" : "off" }, el("button",
        { type: "button", class: slotClass(edge.slot), title: edge.name, onclick: () => select(i, true),
          onmouseenter: () => lightEdge(edge), onmouseleave: restore },
        el("span", { class: "slot", title: slotName[edge.slot] }, edge.slot || "•"), el("span", { class: "name" }, nodes[i].label),
        el("span", { class: "soft" }, promoted(nodes[i])),
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
        back()),
      el("p", { class: "meta" }, `${kindOf(node)}, ${into[i].length} in, ${out[i].length} out`),
      ...(node.verdict ? [el("p", { class: "said" }, el("span", { class: `role ${node.role}` }, node.role), " ", node.verdict)] : []),
      ...wayOf(i),
      ...(node.attention ? attentionOf(node.attention) : []),
      ...(node.answer ? answerOf(node.answer) : []),
      ...(lens ? [
        el("h4", {}, "What it writes at the last token"),
        ...(node.writes !== null && !node.answer ? [el("p", { class: "meta" }, `Directly it adds ${signed(node.writes)} logits of `, el("code", {}, answer), ".")] : []),
        el("p", { class: "meta" }, "The answer ", el("code", {}, answer), ` stands at rank ${lens.rank.toLocaleString("en")} in it (probability ${number(lens.probability)}).`),
        el("div", { class: "tokens" }, tokenTable("Promotes (logit)", lens.promoted), tokenTable("Suppresses (logit)", lens.suppressed)),
      ] : [el("p", { class: "meta" }, "No lens reading was made for this component.")]),
      ...linkList("Reads from", into[i], (edge) => edge.from),
      ...linkList("Writes to", out[i], (edge) => edge.to));
    panel.scrollTop = 0;
  }

  /** Choose a component (null: none). `moveFocus` moves the focus along with the panel's new content. */
  const address = addressed(nodes.map((node) => [node.label, node.name]));

  function select(i, moveFocus = false) {
    const before = chosen ?? lane;
    chosen = i;
    lane = null;
    groups.forEach((group, j) => group.classList.toggle("chosen", j === i));
    if (i === null) { if (before !== null || !panel.firstChild) listPanel(); } else nodePanel(i);
    restore();
    address.put(i);
    if (i !== null) reveal(groups[i]);
    if (i !== null) say(`${nodes[i].label} chosen`);
    if (moveFocus) panel.querySelector("button")?.focus({ preventScroll: true });
    if (i !== null && matchMedia("(max-width: 1080px)").matches) panel.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && (chosen ?? lane) !== null) select(null, panel.contains(document.activeElement));
  });

  // ---- the table of edges --------------------------------------------------------------------------------------------

  const body = document.querySelector("#edges tbody"), top = Math.max(...edges.map(strength), 1e-12);
  const go = (i) => el("button", { type: "button", onclick: () => { select(i); $("circuit-heading").scrollIntoView(); } }, nodes[i].label);
  function edgeRow(edge) {
    const meter = el("span", { class: "meter" });
    meter.style.width = `${(100 * strength(edge)) / top}%`;
    const row = el("tr", { class: `${slotClass(edge.slot)}${edge.asked ? "" : " off"}` },
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

  /** What stands in place of the plots in a browser too old to unpack them: their values. */
  function drawTables() {
    const { labels, ranks, probabilities } = data.trajectory;
    $("plot-trajectory").replaceChildren(el("table", {}, el("tbody", {}, ...labels.map((label, i) => el("tr", {},
      el("td", {}, label), el("td", { class: "num" }, `rank ${ranks[i]}`), el("td", { class: "num" }, number(probabilities[i])))))));
  }

  // ---- an overview's layers and lanes --------------------------------------------------------------------------------

  function showLane(members, heading, meta) {
    chosen = null;
    lane = members;
    groups.forEach((group) => group.classList.remove("chosen"));
    listPanel(members, heading, meta);
    restore();
    say(heading);
  }
  if (map) {
    const { layers, lanes } = drawing;
    const inLayer = (layer) => nodes.flatMap((node, i) => (node.layer === layer && !["input", "logits"].includes(node.name) ? [i] : []));
    const layerOf = (i) => Number(layers[i].closest(".layer").dataset.layer);
    drawing.buttons(layers, ["ArrowDown", "ArrowUp"], (i) => `Layer ${layerOf(i)}, ${count(inLayer(layerOf(i)).length, "component")}`, (i) => {
      const layer = layerOf(i), members = inLayer(layer);
      drawing.toggle(layer);
      if (drawing.isOpen(layer) && members.length) showLane(members, `Layer ${layer}`, `${count(members.length, "component")}, those with the largest scores first.`);
      else select(null);
    });
    const inLane = (i) => nodes.flatMap((node, j) => (node.lane === lanes[i].dataset.lane ? [j] : []));
    const wordOf = (i) => lanes[i].querySelector("title").textContent.split(": ");
    drawing.buttons(lanes, ["ArrowLeft", "ArrowRight"], (i) => `${wordOf(i)[0]}, ${count(inLane(i).length, "head")}`,
      (i) => showLane(inLane(i), wordOf(i)[0], `${count(inLane(i).length, "head")} ${wordOf(i)[1]}.`));
  }

  const name = (i) => `${nodes[i].label}, ${kindOf(nodes[i])}, ${into[i].length} in, ${out[i].length} out`;
  walkable(drawing, name, (i) => select(i, true))();
  zoomable([drawing.box]);
  findable(nodes.map((node) => `${node.label} ${node.name} ${kindOf(node)} ${(node.lens?.promoted ?? []).map(([token]) => token).join(" ")}`),
    nodes.map((node) => [node.label, node.name]), (found) => drawing.light([], found), select);
  copyable();
  listPanel();
  applyFilters();
  const seen = () => [map ? [...drawing.box.querySelectorAll("svg")] : [drawing.svg]];
  savable(seen);
  address.follow(select);
  /** For scripts that drive this page. */
  window.kcircuit = { select, still: () => still(seen()), ready: plots(data.plots, drawTables) };
})();
