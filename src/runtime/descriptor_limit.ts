/**
 * The limit of open files, as Linux tells it.
 *
 * @module
 */

/** Where Linux shows a process its own limits (proc(5)). */
export const LIMITS_FILE = "/proc/self/limits";

/** The soft limit in the text of {@linkcode LIMITS_FILE}; undefined where there is none or it is "unlimited". */
export function parseDescriptorLimit(text: string): number | undefined {
  const soft = /^Max open files\s+(\d+)\s/m.exec(text)?.[1];
  return soft === undefined ? undefined : Number(soft);
}
