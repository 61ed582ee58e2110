/** Lines of JSON over the virtio-serial port `hako.lab`. Bytes are base64. */

export type Request =
  | {
      readonly kind: "run";
      readonly id: number;
      readonly argv: readonly string[];
      /** On top of control.ts's own environment. */
      readonly env: Readonly<Record<string, string>>;
      readonly cwd: string;
      readonly stdin: string;
    }
  /** Ends a command and all of its session with SIGKILL. */
  | { readonly kind: "kill"; readonly id: number }
  /** Answered at once by a pong: L1 does not hang. */
  | { readonly kind: "ping" };

export type Reply =
  /** Once, when L1 takes requests. */
  | { readonly kind: "ready" }
  | { readonly kind: "pong" }
  | {
      readonly kind: "output";
      readonly id: number;
      readonly stream: "stdout" | "stderr";
      readonly data: string;
    }
  /** The last reply of a command. `code` is 128 + n after signal n. */
  | { readonly kind: "exit"; readonly id: number; readonly code: number }
  /** The last reply of a command that could not be started. */
  | { readonly kind: "failed"; readonly id: number; readonly message: string };
