"""What is read from the text of a compiled program; every number is known by hand."""

from flam_jax import hlo
from flam_jax.hlo import Collective

PROGRAM = """\
HloModule jit_step

%body.1 (arg: (f32[8], s32[])) -> (f32[8], s32[]) {
  %arg = (f32[8]{0}, s32[]) parameter(0)
  %x = f32[8]{0} get-tuple-element(%arg), index=0
  %gather.1 = f32[64]{0} all-gather(%x), replica_groups=[2,8]<=[16], dimensions={0}
  %work = f32[8]{0} fusion(%x), kind=kLoop, calls=%inside, backend_config={"estimated_cycles":"100"}
}

%test (arg: (f32[8], s32[])) -> pred[] {
  %arg.1 = (f32[8]{0}, s32[]) parameter(0)
  %index = s32[] get-tuple-element(%arg.1), index=1
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%index, %limit), direction=LT
}

%inside (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
}

ENTRY %main (p: f32[4,10]) -> f32[4,10] {
  %p.1 = f32[4,10]{1,0} parameter(0)
  %loop = (f32[8]{0}, s32[]) while(%t), condition=%test, body=%body.1
  %more = f32[4,10]{1,0} fusion(%p.1), kind=kLoop, calls=%inside, backend_config={"estimated_cycles":"7"}
  %reduce.2 = (f32[4,10]{1,0}, bf16[6]{0}) all-reduce(%p.1, %q), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%sum
  %start = (f32[10]{0}, f32[40]{0}) all-gather-start(%y), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %done = f32[40]{0} all-gather-done(%start)
  ROOT %permute = f32[4,10]{1,0} collective-permute(%p.1), source_target_pairs={{0,1},{1,0}}
}
"""


def test_collectives_are_counted_as_often_as_they_run() -> None:
    gathered = 5 * 64 * 4 + 40 * 4
    assert hlo.read_collectives(PROGRAM) == [
        Collective("all-gather", 6, gathered, 1240.0),
        Collective("all-reduce", 1, 172, 258.0),
        Collective("collective-permute", 1, 160, 160.0),
    ]


def test_cycles_are_counted_as_often_as_they_run() -> None:
    assert hlo.read_cycles(PROGRAM) == 5 * 100 + 7
