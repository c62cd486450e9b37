// Read before anything is painted, so that the chosen theme never flashes. Not a module: those come later.
try {
  const chosen = localStorage.getItem("reelfarm-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's theme it is.
}
