"""Both networks, their optimizers and the generator's moving average: one step of pix2pix training at a time.

Lightning Fabric handles device, precision, gradient scaling and several processes; the step itself follows Isola et
al. (CVPR 2017), section 3.3. Losses stay on the device until they are reported, because reading one waits for the whole
step.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.config import Learns, Phase, Recipe
from training.errors import RecipeError
from training.losses import adversarial_loss, content_loss, discriminator_loss, saturation
from training.pretrained import load_pretrained

_NETWORKS = ("generator", "discriminator", "generator_optimizer", "discriminator_optimizer")


def build(kind: str, name: str, options: dict[str, Any]) -> nn.Module:
    """A generator or discriminator by its file name under ``training/generators`` or ``training/discriminators``.

    Raises
    ------
    ModuleNotFoundError : no file of that name. TypeError : unknown option.
    """
    module = importlib.import_module(f"training.{kind}s.{name}")
    network: nn.Module = getattr(module, kind.capitalize())(**options)
    return network


def build_generator(recipe: Recipe) -> nn.Module:
    """The recipe's generator with random weights."""
    channels = {"inputs": recipe.given_channels, "outputs": recipe.output_channels}
    return build("generator", recipe.generator, {**channels, **recipe.generator_options})


def build_discriminator(recipe: Recipe) -> nn.Module:
    """The recipe's discriminator with random weights; it sees lightness and colour."""
    options = {"inputs": recipe.given_channels + recipe.output_channels, **recipe.discriminator_options}
    return build("discriminator", recipe.discriminator, options)


class Trainer:
    """The state of a training run, and its steps."""

    def __init__(self, recipe: Recipe, fabric: Fabric, state: dict[str, Any] | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.fabric = fabric
        self.step = 0
        self.seconds = 0.0
        generator, discriminator = _networks(recipe)
        self.started_from = _start(recipe, generator) if state is None else state["started_from"]
        for network in (generator, discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = fabric.to_device(copy.deepcopy(generator).eval().requires_grad_(False))
        if recipe.compile and fabric.device.type == "cuda":
            generator.compile()
            discriminator.compile()
        self._shares = [1.0] if not recipe.pretrained else [recipe.encoder_rate, 1.0]
        groups = _groups(generator) if recipe.pretrained else [{"params": list(generator.parameters())}]
        self.generator, self.generator_optimizer = fabric.setup(generator, self._optimizer(groups))
        critics = self._optimizer([{"params": list(discriminator.parameters())}])
        self.discriminator, self.discriminator_optimizer = fabric.setup(discriminator, critics)
        if fabric.global_rank:
            torch.manual_seed(recipe.seed + fabric.global_rank)  # equal weights in all processes, different dropout
        if state is not None:
            self._load(state)

    def _optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        kind = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, self.recipe.learning_rate, self.recipe.betas, weight_decay=self.recipe.weight_decay)

    def train_step(
        self, lightness: Tensor, colour: Tensor, phase: Phase, rate: float, learns: Learns = "both"
    ) -> dict[str, Tensor]:
        """One step of both networks, or of one of them.

        Parameters
        ----------
        lightness : (N, 1, S, S) in [-1, 1], or (N, 3, S, S) with the palette after it
        colour : (N, 2 or 3, S, S) in [-1, 1], the truth
        rate : share of the recipe's learning rates
        learns : which networks learn; without an adversary in the phase, always the generator

        Returns
        -------
        scalars by name, on the device: content, total, chroma (mean saturation over the truth's); in an adversarial
        phase also discriminator and adversarial. If the discriminator learns alone, total and adversarial are missing.
        """
        self._set_rates(rate)
        given = lightness.expand(-1, self.recipe.given_channels, -1, -1)
        is_adversarial = phase.adversarial_weight > 0
        frozen = is_adversarial and learns == "discriminator"
        with torch.no_grad() if frozen else contextlib.nullcontext():
            fake = self.generator(given).float()
        recipe = self.recipe
        content = content_loss(recipe.content_loss, fake, colour, phase.vivid_weight, recipe.chroma_scale)
        losses = {"content": content.detach()}
        early = frozen or (recipe.update == "alternating" and learns == "both")
        if is_adversarial and early:
            losses["discriminator"] = self._discriminator_step(given, colour, fake.detach())
        if not frozen:
            losses |= self._generator_step(given, fake, content, phase)
        if is_adversarial and learns == "both" and not early:
            # Each network is updated against the other before this step: ``fake`` is from the generator before it.
            losses["discriminator"] = self._discriminator_step(given, colour, fake.detach())
        self._follow()
        self.step += 1
        chroma = saturation(fake.detach()).mean() / saturation(colour).mean().clamp_min(1e-6)
        return {**losses, "chroma": chroma}

    def _generator_step(self, given: Tensor, fake: Tensor, content: Tensor, phase: Phase) -> dict[str, Tensor]:
        total = content * phase.content_weight
        losses = {}
        if phase.adversarial_weight > 0:
            self.discriminator.requires_grad_(False)
            adversarial = adversarial_loss(self.recipe.adversarial_loss, self._judge(given, fake))
            self.discriminator.requires_grad_(True)
            losses["adversarial"] = adversarial.detach()
            total = total + adversarial * phase.adversarial_weight
        self.generator_optimizer.zero_grad()
        self.fabric.backward(total)
        self.generator_optimizer.step()
        return {**losses, "total": total.detach()}

    def _set_rates(self, rate: float) -> None:
        for group, share in zip(self.generator_optimizer.param_groups, self._shares, strict=True):
            group["lr"] = self.recipe.learning_rate * rate * share
        self.discriminator_optimizer.param_groups[0]["lr"] = self.recipe.discriminator_learning_rate * rate

    def _judge(self, lightness: Tensor, colour: Tensor) -> Tensor:
        return self.discriminator(torch.cat([lightness, colour], dim=1)).float()

    def _discriminator_step(self, lightness: Tensor, colour: Tensor, fake: Tensor) -> Tensor:
        recipe = self.recipe
        real_logits, fake_logits = self._judge(lightness, colour), self._judge(lightness, fake)
        loss = discriminator_loss(recipe.adversarial_loss, real_logits, fake_logits, recipe.label_smoothing)
        self.discriminator_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.discriminator_optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        # A new average follows quickly; otherwise it would keep the random start for a thousand steps.
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        mean, now = self.average.state_dict(), self.generator.state_dict()
        moving = [name for name, value in mean.items() if value.is_floating_point()]
        torch._foreach_lerp_([mean[name] for name in moving], [now[name] for name in moving], 1 - decay)
        for name in mean.keys() - set(moving):
            mean[name].copy_(now[name])

    @torch.no_grad()
    def predict(self, lightness: Tensor) -> Tensor:
        """Predict (N, 2 or 3, H, W) float32 from (N, 1, H, W) lightness by the moving average."""
        given = lightness.to(self.fabric.device).expand(-1, self.recipe.given_channels, -1, -1)
        with self.fabric.autocast():
            return self.average(given).float()

    def is_finite(self) -> bool:
        """True if all weights are finite; waits for the device."""
        weights = [*self.generator.parameters(), *self.average.parameters(), *self.discriminator.parameters()]
        return bool(torch.stack([weight.detach().sum() for weight in weights]).isfinite().all())

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to resume as if it had never stopped."""
        networks = {name: getattr(self, name).state_dict() for name in _NETWORKS}
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "seconds": self.seconds,
            "started_from": self.started_from,
            "average": self.average.state_dict(),
            "random": random,
            "scaler": self.fabric.strategy.precision.state_dict(),
            **networks,
        }

    def _load(self, state: dict[str, Any]) -> None:
        for name in (*_NETWORKS, "average"):
            getattr(self, name).load_state_dict(state[name])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        if self.fabric.global_rank:  # the saved random state is that of the first process
            torch.manual_seed(self.recipe.seed + self.fabric.global_rank + 1_000_003 * self.step)
            return
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random"]["cuda"], self.fabric.device)


def _networks(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    """The generator and the discriminator of a recipe.

    Raises
    ------
    RecipeError : unknown network or option, or batches that a network cannot take.
    """
    try:
        generator, discriminator = build_generator(recipe), build_discriminator(recipe)
        _check_crops(recipe, int(generator.size_multiple))  # type: ignore[arg-type]
        _rehearse(recipe, generator, discriminator)
    except RecipeError:
        raise
    except (ImportError, AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"recipe {recipe.name}: {reason}; see the files and options under training/") from error
    return generator, discriminator


def _rehearse(recipe: Recipe, generator: nn.Module, discriminator: nn.Module) -> None:
    """Run empty tensors through copies of both networks, so that wrong shapes fail before any picture is read."""
    generator, discriminator = (copy.deepcopy(network).to("meta") for network in (generator, discriminator))
    for phase in recipe.phases:
        lightness = torch.empty(phase.batch, recipe.given_channels, *phase.crop_px, device="meta")
        colour = generator(lightness)
        if phase.adversarial_weight > 0:
            discriminator(torch.cat([lightness, colour], dim=1))


def _check_crops(recipe: Recipe, multiple: int) -> None:
    for phase in recipe.phases:
        height, width = phase.crop_px
        if height % multiple or width % multiple:
            raise RecipeError(
                f"{recipe.name}: crop_px {height}x{width} is no multiple of {multiple}, which {recipe.generator} "
                "needs; change crop_px or the generator's depth"
            )


def _start(recipe: Recipe, generator: nn.Module) -> str:
    if recipe.pretrained is None:
        return "random weights"
    if not hasattr(generator, "encoder"):
        raise RecipeError(
            f"recipe {recipe.name}: {recipe.generator} has no encoder for pretrained weights; set pretrained to null, "
            "or generator to one on an encoder"
        )
    return load_pretrained(generator.encoder, recipe.pretrained)  # type: ignore[arg-type]


def _groups(generator: nn.Module) -> list[dict[str, Any]]:
    """The parameters of the pretrained encoder, and all others."""
    encoder = list(generator.encoder.parameters())  # type: ignore[union-attr,operator]
    known = {id(parameter) for parameter in encoder}
    return [{"params": encoder}, {"params": [p for p in generator.parameters() if id(p) not in known]}]
