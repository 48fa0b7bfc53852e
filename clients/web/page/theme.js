// A plain script, because modules run after the first paint.
try {
  document.documentElement.dataset.theme = localStorage.getItem("panacea.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // storage is forbidden
}
