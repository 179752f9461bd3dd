/** Who acts, for the records. */
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { GqlExecutionContext } from '@nestjs/graphql';
import type { Principal } from '../access/principal.js';

/** Of a resolver's parameter: the principal's name. */
export const Caller = createParamDecorator(
  (_: unknown, context: ExecutionContext) =>
    GqlExecutionContext.create(context).getContext<{ principal: Principal }>().principal.name,
);
