"""Classic control: gymnax's cart-pole, mountain car and pendulum; levels set the physics."""
