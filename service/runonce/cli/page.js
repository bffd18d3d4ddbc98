for (const svg of document.querySelectorAll("svg.chart")) {
  const lines = [...svg.querySelectorAll(".line")].map(line => ({
    label: line.dataset.label,
    points: line.dataset.points.split(" ").map(pair => pair.split(",")),
    places: line.dataset.places.split(" ").map(pair => pair.split(",").map(Number)),
  }));
  const tip = document.createElement("div");
  tip.className = "tip";
  svg.parentNode.append(tip);
  const pointer = document.createElementNS("http://www.w3.org/2000/svg", "line");
  pointer.setAttribute("class", "pointer");
  const leave = () => { tip.textContent = ""; pointer.remove(); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const texts = lines.map(line => {
      let nearest = 0;
      line.places.forEach((place, i) => {
        if (Math.abs(place[0] - across) < Math.abs(line.places[nearest][0] - across)) nearest = i;
      });
      const x = line.places[nearest][0];
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", 12], ["y2", 226]]) pointer.setAttribute(name, value);
      const [step, value] = line.points[nearest];
      return `${line.label ? line.label + ", " : ""}step ${step}: ${value}`;
    });
    svg.append(pointer);
    tip.replaceChildren(...texts.map(text => {
      const row = document.createElement("div");
      row.textContent = text;
      return row;
    }));
  });
}
document.documentElement.dataset.ready = "yes";
