import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import { KeyService, type NewKey } from '../access/keys.js';
import { Caller } from './caller.js';

@Resolver()
export class KeysResolver {
  constructor(@Inject(KeyService) private readonly keyService: KeyService) {}

  @Query('keys')
  keys() {
    return this.keyService.list();
  }

  @Mutation('createKey')
  async createKey(@Args() args: Pick<NewKey, 'name' | 'role'> & Partial<NewKey>, @Caller() by: string) {
    const { name, role, tasks = null, expiresInDays = null } = args;
    const { requestsPerMinute = null, tokensPerMinute = null, subscriptions = null } = args;
    const limits = { requestsPerMinute, tokensPerMinute, subscriptions };
    const key = await this.keyService.create({ name, role, tasks, expiresInDays, ...limits }, by);
    return { key, accessKey: await this.keyService.get(name) };
  }

  @Mutation('rotateKey')
  async rotateKey(
    @Args('name') name: string,
    @Args('graceMinutes') graceMinutes: number | null,
    @Args('expiresInDays') expiresInDays: number | null | undefined,
    @Caller() by: string,
  ) {
    const times = { graceMinutes: graceMinutes ?? 1440, expiresInDays: expiresInDays ?? null };
    const key = await this.keyService.rotate(name, times, by);
    return { key, accessKey: await this.keyService.get(name) };
  }

  @Mutation('revokeKey')
  async revokeKey(@Args('name') name: string, @Caller() by: string) {
    await this.keyService.revoke(name, by);
    return this.keyService.get(name);
  }
}
