/**
 * Text for people: a table, sizes, rates.
 *
 * @module
 */

/** Lays out rows in columns; the first row is the heading, the first two columns are words. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length))
  );
  const line = (row: readonly string[]) =>
    row.map((cell, i) => i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))
      .join("  ").trimEnd();
  const rule = widths.map((width) => "-".repeat(width));
  const [heading = [], ...body] = rows;
  return [heading, rule, ...body].map(line).join("\n");
}

/** 1234567 as "1.2 MB". */
export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** Bytes and seconds as "1.2 MB/s". */
export function rate(bytes: number, seconds: number): string {
  return seconds > 0 ? `${size(Math.round(bytes / seconds))}/s` : "-";
}

/** How many times smaller the messages were on the wire; below 1 is larger. */
export function ratio(payloadBytes: number, wireBytes: number): string {
  return wireBytes > 0 ? (payloadBytes / wireBytes).toFixed(2) : "-";
}
