/**
 * Traces, by OpenTelemetry's API: where nothing collects them (`sdk.ts`) every function here does next to nothing, and
 * whoever works on a text passes on where in a trace it stands without knowing the library.
 */
import {
  type Attributes,
  type Context,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';

/** Where in a trace something stands; undefined: in none. */
export type Trace = Context | undefined;

/** W3C's `traceparent` and `tracestate`. */
export type TraceHeaders = Record<string, string>;

export interface SpanOptions {
  kind?: keyof typeof KINDS;
  /** Other traces that it is done for too. */
  links?: Trace[];
  attributes?: Attributes;
}

export interface OpenSpan {
  /** For what is done within. */
  trace: Trace;
  end(error?: unknown): void;
}

const KINDS = { server: SpanKind.SERVER, consumer: SpanKind.CONSUMER, internal: SpanKind.INTERNAL };

export function traceOf(headers: Record<string, unknown>): Trace {
  const carrier = Object.fromEntries(
    ['traceparent', 'tracestate'].flatMap((name) => {
      const value = headers[name];
      return typeof value === 'string' || Buffer.isBuffer(value) ? [[name, value.toString()]] : [];
    }),
  );
  return placed(propagation.extract(ROOT_CONTEXT, carrier));
}

export function traceHeaders(place: Trace): TraceHeaders {
  const carrier: TraceHeaders = {};
  if (place) propagation.inject(place, carrier);
  return carrier;
}

/** Without a parent the span begins a trace of its own. */
export function beginSpan(name: string, parent: Trace, options: SpanOptions = {}): OpenSpan {
  const { kind = 'internal', links = [], attributes = {} } = options;
  const linked = links.flatMap((link) => {
    const context = link && trace.getSpanContext(link);
    return context ? [{ context }] : [];
  });
  const from = parent ?? ROOT_CONTEXT;
  const span = trace.getTracer('fewloop').startSpan(name, { kind: KINDS[kind], attributes, links: linked }, from);
  return {
    trace: placed(trace.setSpan(from, span)),
    end(error) {
      if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: (error as Error).message });
      span.end();
    },
  };
}

/** The span of a piece of work, which gets its place. */
export async function inSpan<T>(
  name: string,
  parent: Trace,
  options: SpanOptions,
  work: (place: Trace) => Promise<T>,
): Promise<T> {
  const span = beginSpan(name, parent, options);
  try {
    const result = await work(span.trace);
    span.end();
    return result;
  } catch (error) {
    span.end(error);
    throw error;
  }
}

function placed(context: Context): Trace {
  const known = trace.getSpanContext(context);
  return known && trace.isSpanContextValid(known) ? context : undefined;
}
