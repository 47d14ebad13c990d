// A figure's numbers: pointing at a panel, tapping it, or moving through it with the arrow keys
// tells ours and the paper's at the nearest place. The pictures are complete without.
addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".panels")) {
    const source = box.querySelector("script.readings");
    if (!source) continue;
    const told = JSON.parse(source.textContent);
    const rule = document.createElement("div");
    const card = document.createElement("div");
    rule.className = "reading-rule";
    card.className = "reading";
    card.setAttribute("role", "status");
    box.append(rule, card);

    const hide = () => box.classList.remove("reading-now");

    const cell = (row, text, name = "td") => {
      const made = document.createElement(name);
      made.textContent = text;
      row.append(made);
      return made;
    };

    const show = (picture, places, number) => {
      const place = places[number];
      picture.dataset.reading = number;
      const table = document.createElement("table");
      const title = document.createElement("strong");
      title.textContent = picture.alt.split("First panel: ").pop();
      table.createCaption().append(title, document.createElement("br"), place.where);
      const columns = { ours: "ours", paper: "the paper’s" };
      for (const key of Object.keys(columns)) {
        if (!place.lines.some((line) => line[key])) delete columns[key];
      }
      const head = table.createTHead().insertRow();
      for (const text of ["", ...Object.values(columns)]) cell(head, text, "th");
      const body = table.createTBody();
      for (const line of place.lines) {
        const row = body.insertRow();
        const name = cell(row, line.name, "th");
        if (line.colour) {
          const swatch = document.createElement("i");
          swatch.style.background = line.colour;
          name.prepend(swatch);
        }
        for (const key of Object.keys(columns)) cell(row, line[key] || "–");
      }
      card.replaceChildren(table);
      box.classList.add("reading-now");
      const x = picture.offsetLeft + place.at * picture.clientWidth;
      Object.assign(rule.style, { left: `${x}px`, top: `${picture.offsetTop}px`, height: `${picture.clientHeight}px` });
      const most = box.clientWidth - card.offsetWidth;
      const left = place.at < 0.5 ? x + 12 : x - card.offsetWidth - 12;
      card.style.left = `${Math.max(0, Math.min(left, most))}px`;
      const below = picture.getBoundingClientRect().bottom + card.offsetHeight + 8 < innerHeight;
      card.style.top = `${picture.offsetTop + (below ? picture.clientHeight + 4 : -card.offsetHeight - 4)}px`;
    };

    [...box.querySelectorAll("img")].forEach((picture, i) => {
      const places = told[i] || [];
      if (!places.length) return;
      const nearest = (event) => {
        const at = (event.clientX - picture.getBoundingClientRect().left) / picture.clientWidth;
        const away = places.map((place) => Math.abs(place.at - at));
        show(picture, places, away.indexOf(Math.min(...away)));
      };
      picture.tabIndex = 0;
      picture.addEventListener("pointermove", nearest);
      picture.addEventListener("pointerdown", nearest);
      picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
      picture.addEventListener("blur", hide);
      picture.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === "Escape") hide();
        if (!step) return;
        event.preventDefault();
        const now = Number(picture.dataset.reading ?? (step > 0 ? -1 : places.length));
        show(picture, places, Math.max(0, Math.min(now + step, places.length - 1)));
      });
    });
  }
});
