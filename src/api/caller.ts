/** Who acts, for the records. */
import { Context } from '@nestjs/graphql';
import type { Principal } from '../access/principal.js';

const nameOf = { transform: ({ name }: Principal) => name };

/** Of a resolver's parameter: the principal's name. */
export function Caller(): ParameterDecorator {
  return Context('principal', nameOf);
}
