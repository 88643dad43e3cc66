//! The documents that several tests run. Each input has a `url`, where the outside world is.

/// One step that posts the run's input to `$input.url`, tried as often as the default says.
pub const CALL: &str = "
reipaz: 1
name: call
steps:
  call:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }', body: '${ $input }'}
output: '${ $steps.call.output.body }'
";

/// Three silent steps that count up: the output is the input's `n` plus 3.
pub const COUNT: &str = "
reipaz: 1
name: count
input: {type: object, required: [n], properties: {n: {type: number}}}
steps:
  first: {uses: transform@1, with: {data: '${ $input.n }', filter: '. + 1'}}
  second: {uses: transform@1, with: {data: '${ $steps.first.output }', filter: '. + 1'}}
  third: {uses: transform@1, with: {data: '${ $steps.second.output }', filter: '. + 1'}}
output: '${ $steps.third.output }'
";

/// A chain of `length` calls, one after another, each of `$input.url` with its number as the query.
pub fn chain(name: &str, length: usize) -> String {
    let steps: String = (0..length)
        .map(|n| {
            let needs = if n == 0 { String::new() } else { format!("\n    needs: [call_{}]", n - 1) };
            format!(
                "  call_{n}:\n    uses: http_request@1\n    with: {{url: '${{ $input.url }}?n={n}'}}{needs}\n"
            )
        })
        .collect();
    format!("reipaz: 1\nname: {name}\nsteps:\n{steps}")
}
