/**
 * Links that nobody wants any more.
 *
 * @module
 */

import type { Link } from "../transport/transport.ts";

/** Closes a link; its end concerns nobody either. */
export function discard(link: Link): void {
  link.open({ onData() {}, onDrain() {}, onEnd() {}, onClose() {} });
  link.close();
}
