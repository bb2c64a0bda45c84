/**
 * How text from outside is shown in an error message or a log line.
 *
 * @module
 */

/**
 * The text in double quotes, cut to its first `max` UTF-16 units (then it ends in "…"), with
 * quotes, backslashes and everything but printable ASCII escaped as in JSON: `"a\u001b[2J"`.
 *
 * @param max The longest quotation in UTF-16 units, before escaping. 64 by default.
 */
export function quote(text: string, max: number = 64): string {
  const escaped = text.slice(0, max).replace(/[^ !#-[\]-~]/g, escapeUnit);
  return text.length > max ? `"${escaped}…"` : `"${escaped}"`;
}

function escapeUnit(unit: string): string {
  if (unit === '"' || unit === "\\") return `\\${unit}`;
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
