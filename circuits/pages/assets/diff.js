// The behaviour of a diff's page. One drawing holds both circuits; each pane shows its own side of it.
(() => {
  const { $, el, number, signed, count, say, wire, parts, light, roving, walkable, zoomable, reveal, findable, copyable, addressed, still, savable, plots } = kit;
  const data = JSON.parse($("data").textContent);
  const { nodes, edges, answers, unit } = data;
  const panel = $("components"), layout = $("layout");

  // ---- two drawings from one -----------------------------------------------------------------------------------------

  const before = document.querySelector("#pane-before svg");
  const after = before.cloneNode(true);
  document.querySelector("#pane-after .canvas").append(after);
  const drawings = [before, after].map(parts);
  const { into, out, near } = wire(nodes, edges);

  const stateOf = (node) => (node.before.in && node.after.in ? "kept" : node.before.in ? "lost" : "gained");
  const words = data.states;
  const kindOf = (node) => [node.kind, node.role ? `${node.role} head` : "", node.edited ? "edited" : ""].filter(Boolean).join(", ");

  const entries = drawings.map((drawing) =>
    walkable(drawing, (i) => `${nodes[i].label}, ${kindOf(nodes[i])}, ${words[stateOf(nodes[i])]}`, (i) => select(i, true)));

  /** Side by side, each pane shows its own circuit; overlaid, the first pane shows both. */
  function show(view) {
    const apart = view === "apart";
    layout.className = apart ? "apart" : "over";
    $("pane-after").hidden = !apart;
    before.classList.toggle("shows-before", apart);
    after.classList.add("shows-after");
    $("before-name").hidden = !apart;
    $("both-names").hidden = apart;
    for (const enter of entries) enter();
    say(apart ? "Circuits side by side" : "Circuits overlaid");
  }
  $("views").addEventListener("change", (event) => show(event.target.value));

  // ---- which edges are shown -----------------------------------------------------------------------------------------

  const slider = $("threshold"), sliderOut = $("threshold-out");
  slider.max = Math.max(edges.length - 1, 0);
  slider.disabled = !edges.some((edge) => edge.size > 0);

  /** One step of the slider hides the next weakest edge; a state that is not ticked is hidden whole. */
  function applyFilters() {
    const hidden = Number(slider.value);
    const least = hidden ? edges[edges.length - 1 - hidden].size || 0 : 0;
    const states = new Set([...document.querySelectorAll("#states input:checked")].map((box) => box.value));
    let shown = 0;
    for (const edge of edges) {
      const seen = (edge.size || 0) >= least && states.has(edge.state);
      if (seen !== edge.shown) {
        edge.shown = seen;
        for (const { paths } of drawings) paths[edge.index].classList.toggle("off", !seen);
      }
      shown += seen;
    }
    for (const { groups } of drawings) {
      groups.forEach((group, i) => group.classList.toggle("idle", !near[i].some((edge) => edge.shown)));
    }
    sliderOut.textContent = `${least ? `≥ ${number(least)} ${unit}` : "all scores"}: ${shown.toLocaleString("en")} of ${count(edges.length, "edge")}`;
    slider.setAttribute("aria-valuetext", sliderOut.textContent);
  }
  slider.addEventListener("input", applyFilters);
  $("states").addEventListener("change", applyFilters);

  // ---- choose a component --------------------------------------------------------------------------------------------

  let chosen = null;

  function lightNode(i) {
    const seen = i === null ? [] : near[i].filter((edge) => edge.shown);
    const lit = i === null ? [] : [i, ...seen.flatMap((edge) => [edge.from, edge.to])];
    for (const drawing of drawings) light(drawing, seen, lit);
  }

  function listPanel() {
    const order = { gained: 0, lost: 1, kept: 2 };
    const sorted = nodes.map((_, i) => i).sort((a, b) => order[stateOf(nodes[a])] - order[stateOf(nodes[b])] || b - a);
    const items = sorted.map((i) => el("li", {}, el("button",
      { type: "button", onclick: () => select(i, true), onmouseenter: () => lightNode(i), onmouseleave: () => lightNode(chosen) },
      el("span", { class: "name" }, nodes[i].label),
      el("span", { class: "soft" }, [nodes[i].role, nodes[i].edited ? "edited" : ""].filter(Boolean).join(", ")),
      el("span", { class: `state ${stateOf(nodes[i])}` }, words[stateOf(nodes[i])]))));
    panel.replaceChildren(el("h3", { id: "panel-heading" }, count(nodes.length, "component")),
      el("p", { class: "meta" }, `In this order: ${words.gained}, ${words.lost}, in both. Choose one, here or in a drawing, to compare what it does on both sides.`),
      roving(el("ul", { class: "list" }, ...items)));
  }

  function links(title, list, other) {
    if (!list.length) return [];
    const items = list.map((edge) => el("li", {}, el("button",
      { type: "button", title: edge.name, onclick: () => select(other(edge), true) },
      el("span", { class: "slot" }, edge.slot || "•"), el("span", { class: "name" }, nodes[other(edge)].label),
      el("span", { class: `state ${edge.state}` }, words[edge.state]),
      el("span", { class: "soft num" }, edge.state === "kept" ? `${signed(edge.before)} → ${signed(edge.after)}` : signed(edge.state === "lost" ? edge.before : edge.after)))));
    return [el("div", {}, el("h4", {}, `${title} (${list.length})`), roving(el("ul", { class: "list links" }, ...items)))];
  }

  function nodePanel(i) {
    const node = nodes[i];
    // One model on one prompt reads one way: it is said once.
    const sides = data.names.one ? ["after"] : ["before", "after"];
    const does = sides.filter((side) => node[side].does).map((side) =>
      el("p", { class: "said" }, el("b", {}, data.names.one ? "At this prompt: " : `${data.names[side]}: `), `it ${node[side].does}.`));
    const value = (side, a) => (node[side].writes ? signed(node[side].writes[a]) : "–");
    const rows = answers.map((answer, a) => el("tr", {}, el("th", { scope: "row" }, answer),
      ...sides.map((side) => el("td", { class: "num" }, value(side, a)))));
    const table = node.before.writes || node.after.writes ? [el("h4", {}, "Writes of the answers, in logits"), el("table", { class: "compare" },
      el("thead", {}, el("tr", {}, el("td", {}), ...sides.map((side) => el("th", { scope: "col", class: "num" }, data.names.one ? "" : data.names[side])))),
      el("tbody", {}, ...rows))] : [];
    const state = stateOf(node);
    panel.replaceChildren(
      el("div", { class: "head-row" }, el("h3", { id: "panel-heading" }, node.label),
        el("button", { type: "button", id: "back", onclick: () => select(null, true) }, "All components")),
      el("p", { class: "meta" }, `${kindOf(node)}, `, el("span", { class: `state ${state}` }, words[state])),
      el("div", { class: "facets" },
        ...(does.length + table.length ? [el("div", {}, ...does, ...table)] : []),
        ...links("Reads from", into[i], (edge) => edge.from), ...links("Writes to", out[i], (edge) => edge.to)));
    panel.scrollTop = 0;
  }

  const address = addressed(nodes.map((node) => [node.label, node.name]));

  function select(i, moveFocus = false) {
    const was = chosen;
    chosen = i;
    for (const { groups } of drawings) groups.forEach((group, j) => group.classList.toggle("chosen", j === i));
    if (i === null) { if (was !== null || !panel.firstChild) listPanel(); } else nodePanel(i);
    lightNode(i);
    address.put(i);
    if (i !== null) {
      for (const { groups } of drawings) reveal(groups[i]);
      say(`${nodes[i].label} chosen`);
    }
    if (moveFocus) panel.querySelector("button")?.focus({ preventScroll: true });
  }
  for (const { svg, groups } of drawings) {
    svg.addEventListener("click", (event) => {
      const group = event.target.closest(".node");
      select(group ? groups.indexOf(group) : null);
    });
    svg.addEventListener("pointerover", (event) => {
      const group = event.target.closest(".node");
      lightNode(group ? groups.indexOf(group) : chosen);
    });
    svg.addEventListener("pointerleave", () => lightNode(chosen));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) select(null, panel.contains(document.activeElement));
  });

  zoomable([before, after]);
  findable(nodes.map((node) => `${node.label} ${node.name} ${kindOf(node)} ${words[stateOf(node)]}`), nodes.map((node) => [node.label, node.name]),
    (found) => drawings.forEach((drawing) => light(drawing, [], found)), select);
  copyable();
  listPanel();
  applyFilters();
  show("apart");
  /** Side by side as they are seen; the one drawing, where they are overlaid. */
  const seen = () => [before, after].filter((svg) => svg.getClientRects().length).map((svg) => [svg]);
  savable(seen);
  address.follow(select);
  /** For scripts that drive this page. */
  window.kcircuit = { select, show, still: () => still(seen()), ready: plots(data.plots, () => {}) };
})();
