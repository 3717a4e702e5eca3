"""Training steps of aihwkit (https://github.com/IBM/aihwkit): inference tiles with noise of their weights."""

import importlib

from serving import Task, network, serve, step

WHAT = "normal noise of weights at each step, converters, noise of outputs; no I-V law"


def make(sizes: list[int], batch: int) -> tuple[str, dict[str, tuple[str, Task]]]:
    """Return the version and the tasks."""
    configs = importlib.import_module("aihwkit.simulator.configs")
    noise = importlib.import_module("aihwkit.inference").PCMLikeNoiseModel
    layers = importlib.import_module("aihwkit.nn")

    def task(kind: str) -> tuple[str, Task]:
        config = getattr(configs, kind)()
        config.noise_model = noise(g_max=25.0)
        config.modifier.type = configs.WeightModifierType.ADD_NORMAL
        config.modifier.std_dev = 0.1
        model = network(sizes, lambda a, b: layers.AnalogLinear(a, b, rpu_config=config)).train()

        def drawn() -> None:  # as its optimisers do after each step
            for layer in list(model)[::2]:
                for tile in layer.analog_tiles():  # type: ignore[operator]
                    tile.post_update_step()

        return WHAT, step(model, sizes, batch, drawn)

    version = importlib.import_module("aihwkit").__version__
    return version, {"InferenceTile": task("InferenceRPUConfig"), "TorchInferenceTile": task("TorchInferenceRPUConfig")}


if __name__ == "__main__":
    serve("aihwkit", make)
