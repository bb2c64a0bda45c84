/**
 * The error of a command line that can't be carried out as it is written.
 *
 * @module
 */

/** The arguments of a command are wrong; the message is one line. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}
