"""See an energy landscape: fit two moons for a few seconds, draw the energy and the chains that run over it.

Usage: python examples/landscape.py [IMAGES] [OUT.png]
"""

import sys

import thalweg as tw

images = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
out = sys.argv[2] if len(sys.argv) > 2 else "landscape.png"

toy = tw.data.toy("moons")
method = tw.method("short_run/moons", images=images)
trained = tw.fit(method, toy, images=images)

# chains that start at noise and come to rest in the valleys
trace = tw.sample.Trace(keep=30)
start = 2.0 * tw.random.normal(12, 2, generator=tw.random.seeded(0))
tw.sample.mala(trained.energy, start, steps=300, step=0.1, generator=tw.random.seeded(1), trace=trace)

print(tw.plot.landscape(trained.energy, out, extent=toy.extent, chains=trace.states, title="two moons"))
report = tw.evaluate.density(trained.energy, toy, grid=200)
print(f"KL(truth‖model) = {report.kl_truth_model:.3f} nats, total variation = {report.total_variation:.3f}")
