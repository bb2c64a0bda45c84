/**
 * How a value from outside is quoted in an error message.
 *
 * @module
 */

/** The longest quotation in characters, before escaping, where the caller says nothing else. */
const MAX_SHOWN_CHARS = 64;

/**
 * A value as it may stand in a message or a log line: strings and keys double-quoted, cut to
 * `maxChars`, with everything but printable ASCII escaped; containers only named. Never calls into
 * the value (no `toString`, no getters).
 */
export function showValue(value: unknown, maxChars: number = MAX_SHOWN_CHARS): string {
  switch (typeof value) {
    case "string":
      return quoteText(value, maxChars);
    case "number":
      return Object.is(value, -0) ? "-0" : String(value);
    case "bigint":
      return cut(value.toString(), maxChars);
    case "boolean":
    case "undefined":
      return String(value);
    case "symbol":
      return "a symbol";
    case "function":
      return "a function";
    default:
      if (value === null) return "null";
      if (value instanceof Date) return "a date";
      return Array.isArray(value) ? "a list" : "an object";
  }
}

function quoteText(text: string, maxChars: number): string {
  const escaped = text.slice(0, maxChars).replace(/[^ !#-[\]-~]/g, escapeUnit);
  return text.length > maxChars ? `"${escaped}…"` : `"${escaped}"`;
}

function escapeUnit(unit: string): string {
  if (unit === '"' || unit === "\\") return `\\${unit}`;
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function cut(digits: string, maxChars: number): string {
  return digits.length > maxChars ? `${digits.slice(0, maxChars)}…` : digits;
}
