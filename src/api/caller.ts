/** Who acts, for the records. */
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { GqlExecutionContext } from '@nestjs/graphql';
import type { Principal } from '../access/principal.js';

const principalOf = (context: ExecutionContext) =>
  GqlExecutionContext.create(context).getContext<{ principal: Principal }>().principal;

/** Of a resolver's parameter: the principal's name. */
export const Caller = createParamDecorator((_: unknown, context: ExecutionContext) => principalOf(context).name);

/** The same, the principal itself: where what is answered hangs on more than the field and the task. */
export const Asking = createParamDecorator((_: unknown, context: ExecutionContext) => principalOf(context));
