// The scoreboard's filters. Their state is the part of the address after "#", such as
// #network=Lenet&outcome=open, so that it can be sent; #fig04-… leads to one claim.
addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.claims-filter");
  if (!form) return;
  const FEW = 40; // so many rows are shown at once
  const said = form.querySelector("output");
  const groups = [...document.querySelectorAll(".scoreboard details")];
  const claims = [...document.querySelectorAll(".scoreboard li")];
  const marks = new Map(
    [...document.querySelectorAll(".scoreboard a.mark")].map((mark) => [mark.hash.slice(1), mark]),
  );
  const words = new Map(claims.map((claim) => [claim, `${claim.id} ${claim.textContent}`.toLowerCase()]));
  form.hidden = false;

  const wanted = () => [...new FormData(form)].filter(([, value]) => value);

  const fits = (claim, [name, value]) => {
    if (name === "q") return value.toLowerCase().split(/\s+/).every((word) => words.get(claim).includes(word));
    return claim.dataset[name].split(", ").includes(value);
  };

  const show = () => {
    const filters = wanted();
    let count = 0;
    for (const claim of claims) {
      const fit = filters.every((filter) => fits(claim, filter));
      claim.hidden = !fit;
      marks.get(claim.id).classList.toggle("off", !fit);
      count += fit;
    }
    for (const group of groups) {
      const some = Boolean(group.querySelector("li:not([hidden])"));
      group.parentElement.hidden = !some;
      if (filters.length) group.open = some && count <= FEW;
    }
    said.textContent = filters.length
      ? `${count} of ${claims.length} claims.${count > FEW ? " Open a figure to read its own." : ""}`
      : "";
  };

  const write = () => {
    const state = new URLSearchParams(wanted()).toString();
    history.replaceState(null, "", state ? `#${state}` : location.pathname.split("/").pop() || "#");
    show();
  };

  const read = () => {
    const hash = decodeURIComponent(location.hash.slice(1));
    const state = new URLSearchParams(hash.includes("=") ? location.hash.slice(1) : "");
    for (const field of form.querySelectorAll("select, input")) {
      field.value = state.get(field.name) ?? "";
      if (field.selectedIndex === -1) field.value = ""; // no such choice
    }
    show();
    if (!hash || hash.includes("=") || !hash.startsWith("fig")) return;
    const claim = document.getElementById(hash);
    const group = claim ? claim.closest("details") : document.getElementById(`${hash.slice(0, 5)}-claims`);
    if (!claim) said.textContent = `There is no claim ${hash} (any more).` + (group ? " Its figure's claims are open below." : "");
    if (!group) return;
    group.open = true;
    (claim || group).scrollIntoView();
  };

  form.addEventListener("input", write);
  form.addEventListener("reset", () => setTimeout(write));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", read);
  read();
});
