//! Recipes are functions of their keys with the method's chances; pixels are those that were recorded.

use super::*;

#[test]
fn a_recipe_is_a_function_of_its_key() {
    let draw = |epoch, sample, view| Recipe::draw(1, epoch, sample, view, 300, 200);
    assert_eq!(draw(2, 3, View::First), draw(2, 3, View::First));
    assert_ne!(draw(2, 3, View::First), draw(2, 3, View::Second));
    assert_ne!(draw(2, 3, View::First), draw(2, 4, View::First));
    assert_ne!(draw(2, 3, View::First), draw(3, 3, View::First));
}

#[test]
fn chances_are_those_of_the_method() {
    let recipes = |view| (0..4000).map(move |sample| Recipe::draw(0, 0, sample, view, 300, 200));
    let share = |view, holds: fn(&Recipe) -> bool| recipes(view).filter(holds).count() as f64 / 4000.0;
    let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.03, "{found} is not {wanted}");
    close(share(View::First, |r| r.flip), 0.5);
    close(share(View::First, |r| r.look.jitter.is_some()), 0.8);
    close(share(View::First, |r| r.look.grey), 0.2);
    close(share(View::First, |r| r.look.blur.is_some()), 1.0);
    close(share(View::First, |r| r.look.solarise), 0.0);
    close(share(View::Second, |r| r.look.blur.is_some()), 0.1);
    close(share(View::Second, |r| r.look.solarise), 0.2);
}

#[test]
fn the_corners_are_the_crop_in_the_unit_square() {
    for sample in 0..500 {
        let recipe = Recipe::draw(0, 0, sample, View::First, 320, 180);
        let [y0, x0, y1, x1] = recipe.corners;
        assert!(0.0 <= y0 && y0 < y1 && y1 <= 1.0 && 0.0 <= x0 && x0 < x1 && x1 <= 1.0, "{:?}", recipe.corners);
    }
}
