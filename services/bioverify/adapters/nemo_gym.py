"""NVIDIA NeMo Gym: a resources server whose verifier is bioverify.

Its ``app.py`` is two lines, its configuration names where to ask:

```python
from bioverify.adapters.nemo_gym import BioverifyResourcesServer
BioverifyResourcesServer.run_webserver()
```

```yaml
bioverify:
  resources_servers:
    bioverify: {entrypoint: app.py, domain: knowledge, target: "127.0.0.1:15050", recipe: rbio1-exp}
```

A row may have a field ``bioverify`` (`bioverify.adapters.reading`). The form wants a number in every answer; a missing
reward is 0 with ``mask_sample``, ``failure_kind`` and ``failure_reason``, by which Gym leaves the sample out.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    ReverifyMode,
    SimpleResourcesServer,
)

from bioverify.adapters.alone import PATIENCE_S, Alone, NoRewardError
from bioverify.adapters.reading import read_rollout
from bioverify.client import ScoreItem
from bioverify.core import DEFAULT_RECIPE


class BioverifyConfig(BaseResourcesServerConfig):  # type: ignore[misc]
    """``target``: the aggregator. ``patience_s``: how long faults that may pass are waited for."""

    REVERIFY_MODE: ClassVar[ReverifyMode] = ReverifyMode.STATELESS
    target: str
    recipe: str = DEFAULT_RECIPE
    patience_s: float = PATIENCE_S


class BioverifyVerifyRequest(BaseVerifyRequest):  # type: ignore[misc]
    bioverify: dict[str, Any] | str | None = None


class BioverifyResourcesServer(SimpleResourcesServer):  # type: ignore[misc]
    config: BioverifyConfig

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._alone = Alone(self.config.target, self.config.recipe, self.config.patience_s)

    async def verify(self, body: BioverifyVerifyRequest) -> BaseVerifyResponse:
        """The reward of one rollout; masked if there is none."""
        try:
            reward = await asyncio.to_thread(self._alone.reward, _read(body))
        except (NoRewardError, ValueError) as error:
            # A rollout that cannot be read is no answer that is wrong.
            may_pass = isinstance(error, NoRewardError) and error.may_pass
            kind = "provider_unavailable" if may_pass else "verifier_error"
            return BaseVerifyResponse(
                **body.model_dump(), reward=0.0, mask_sample=True, failure_kind=kind, failure_reason=str(error)
            )
        return BaseVerifyResponse(**body.model_dump(), reward=reward)


def _read(body: BioverifyVerifyRequest) -> ScoreItem:
    asked = body.responses_create_params.model_dump(mode="json", exclude_none=True)
    given = asked["input"]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if instructions := asked.get("instructions"):
        turns = [{"role": "system", "content": instructions}, *turns]
    output = body.response.model_dump(mode="json", exclude_none=True)["output"]
    return read_rollout(output, turns, body.bioverify)
