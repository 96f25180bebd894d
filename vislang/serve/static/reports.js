// The reports of runs and evaluations, as links.
import { call } from "./api.js";
import { byId, make } from "./dom.js";

/** List the reports, if the server shows any. */
export async function listReports() {
  const reports = (await call("/v1/reports")).data;
  byId("report-list").replaceChildren(...reports.map(({ id, url, modified }) => {
    const written = new Date(1000 * modified).toLocaleString();
    return make("li", {}, make("a", { href: url, target: "_blank", rel: "noopener" }, id), make("small", {}, ` ${written}`));
  }));
  byId("reports").hidden = !reports.length;
}
