import { HakoError } from "#base/error.ts";
import type { ByteStream } from "#sys/byte-stream.ts";
import type { MethodDefinition, RequestOf, ResponseOf, Sendable, ServiceDefinition } from "./definition.ts";
import type { CallContext, RegisteredMethod } from "./server-call.ts";
import { ServerConnection, type ServerLimits } from "./server-connection.ts";

type ServerMethod<Method extends MethodDefinition> = (
  request: Method["requestStream"] extends true ? AsyncIterable<RequestOf<Method>> : RequestOf<Method>,
  context: CallContext,
) => Method["responseStream"] extends true
  ? AsyncIterable<Sendable<ResponseOf<Method>>>
  : Promise<Sendable<ResponseOf<Method>>> | Sendable<ResponseOf<Method>>;

/** A service seen from its server: one function a method; a method left out answers UNIMPLEMENTED. */
export type ServiceImplementation<Definition extends ServiceDefinition> = {
  readonly [Name in keyof Definition["methods"]]?: ServerMethod<Definition["methods"][Name]>;
};

/** What a caller gets beyond what it may have in flight: RESOURCE_EXHAUSTED. */
const DEFAULT_LIMITS: ServerLimits = { calls: 1024, requestBytes: 32 << 20, unreadBytes: 32 << 20 };

/** The answering side of ttrpc: services, and the connections that use them. */
export class TtrpcServer implements Disposable {
  readonly #limits: ServerLimits;
  readonly #services = new Map<string, Map<string, RegisteredMethod>>();
  readonly #loaders = new Map<string, () => Promise<void>>();
  readonly #connections = new Set<ServerConnection>();
  #stopped = false;

  constructor(limits: Partial<ServerLimits> = {}) {
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
  }

  /** Offers a service. Throws ALREADY_EXISTS when one of that name is offered. */
  register<Definition extends ServiceDefinition>(
    definition: Definition,
    implementation: ServiceImplementation<Definition>,
  ): void {
    const service = definition.fullName;
    if (this.#services.has(service)) {
      throw new HakoError("ALREADY_EXISTS", `Cannot register service "${service}" twice`);
    }
    const methods = new Map<string, RegisteredMethod>();
    for (const [key, method] of Object.entries(definition.methods)) {
      const handler = implementation[key] as RegisteredMethod["handler"] | undefined;
      if (handler === undefined) continue;
      const name = `${service}/${method.name}`;
      methods.set(method.name, { name, definition: method, handler: handler.bind(implementation) });
    }
    this.#services.set(service, methods);
  }

  /** Takes a service away; calls under way go on, new ones answer UNIMPLEMENTED until it is registered again. */
  unregister(definition: ServiceDefinition): void {
    this.#services.delete(definition.fullName);
  }

  /**
   * Offers services that are loaded by the first call of one of them: `load` registers them. That call must not be one
   * with a stream of requests. When loading fails the next call tries again.
   */
  registerLater(names: readonly string[], load: () => Promise<void>): void {
    let loading: Promise<void> | undefined;
    const once = () => {
      loading ??= load().catch((error: unknown) => {
        loading = undefined;
        throw error;
      });
      return loading;
    };
    for (const name of names) this.#loaders.set(name, once);
  }

  /** True after {@link shutdown} or {@link close}. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Answers the calls of one connection until it ends. Takes the stream over. Throws UNAVAILABLE once stopped. */
  serve(stream: ByteStream): ServerConnection {
    if (this.#stopped)
      throw new HakoError("UNAVAILABLE", "Cannot serve a connection: the server has stopped");
    const lookup = (service: string, method: string) => this.#lookup(service, method);
    const connection = new ServerConnection(stream, lookup, this.#limits);
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
    return connection;
  }

  /** Refuses new calls with UNAVAILABLE, waits for those in flight and for their responses to leave, then closes. */
  async shutdown(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#connections].map((connection) => connection.shutdown()));
  }

  /** Ends all connections at once; the signals of the calls in flight fire. */
  close(): void {
    this.#stopped = true;
    for (const connection of this.#connections) connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #lookup(service: string, method: string): RegisteredMethod | Promise<RegisteredMethod> {
    const load = this.#services.has(service) ? undefined : this.#loaders.get(service);
    return load ? load().then(() => this.#find(service, method)) : this.#find(service, method);
  }

  #find(service: string, method: string): RegisteredMethod {
    const methods = this.#services.get(service);
    if (methods === undefined) throw new HakoError("UNIMPLEMENTED", `Service "${service}" is not offered`);
    const found = methods.get(method);
    if (found === undefined) {
      throw new HakoError("UNIMPLEMENTED", `Method "${method}" of service "${service}" is not offered`);
    }
    return found;
  }
}
